"""Help pages: commands and options in named sections, readable types, colour on terminals.

Imports nothing but typer, so that `kore --help` stays instant: a command's module is loaded when it is run
or when its own help is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any, ClassVar

import typer
from typer._click import Command, Context, HelpFormatter
from typer.core import TyperCommand, TyperGroup

OPTIONS = "Options"
TYPES = {"<int>": "N", "<float>": "X", "<str>": "TEXT", "<path>": "PATH"}


class Formatter(HelpFormatter):
    """click's formatter with coloured headings, commands and options."""

    def write_heading(self, heading: str) -> None:
        """A section's title."""
        super().write_heading(typer.style(heading, fg="yellow", bold=True))

    def write_dl(self, rows: Any, col_max: int = 30, col_spacing: int = 2) -> None:
        """Two columns, the first one coloured."""
        coloured = [(typer.style(first, fg="cyan"), second) for first, second in rows]
        super().write_dl(coloured, col_max, col_spacing)


class HelpContext(Context):
    """A context whose help is written by `Formatter`."""

    formatter_class = Formatter


class KoreCommand(TyperCommand):
    """A command whose options are grouped by their `rich_help_panel`."""

    context_class = HelpContext

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Arguments first, then the sections in the order of their first option."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if parameter.param_type_name == "option":
                _readable(parameter, ctx)
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            panel = getattr(parameter, "rich_help_panel", None) or OPTIONS
            if parameter.param_type_name == "argument":
                panel, record = "Arguments", (record[0].partition(" <")[0], record[1])
            sections.setdefault(panel, []).append(record)
        if OPTIONS in sections:  # the common ones last
            sections[OPTIONS] = sections.pop(OPTIONS)
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)


def _readable(parameter: Any, ctx: Context) -> None:
    """A type that people read: N, PATH, a,b,c instead of the name of a Python type."""
    if parameter.metavar or getattr(parameter, "is_flag", False):
        return
    shown = parameter.display_type(ctx) or ""
    if shown.startswith("<list"):
        parameter.metavar = "a,b,c"
    elif shown in TYPES:
        parameter.metavar = TYPES[shown]


class KoreGroup(TyperGroup):
    """A group of commands whose help is written as theirs."""

    context_class = HelpContext

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """The commands before the group's own options."""
        self.format_commands(ctx, formatter)
        KoreCommand.format_options(self, ctx, formatter)  # type: ignore[arg-type]


class LazyGroup(KoreGroup):
    """The kore command itself: names and summaries are known, modules are loaded when needed.

    Attributes:
        sections: title -> command -> one complete sentence.
    """

    sections: ClassVar[dict[str, dict[str, str]]] = {}

    def list_commands(self, ctx: Context) -> list[str]:
        """All commands, in the order of their sections."""
        return [name for commands in self.sections.values() for name in commands]

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        """A command, from its module."""
        if cmd_name not in self.commands and cmd_name in self.list_commands(ctx):
            self.commands[cmd_name] = load(cmd_name)
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """One section a group of commands; nothing is imported."""
        width = max(map(len, self.list_commands(ctx)))
        for title, commands in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, text in commands.items()])

    def resolve_command(self, ctx: Context, args: list[str]) -> Any:
        """A command by its name; an unknown one is answered with the nearest."""
        for name in self.list_commands(ctx):
            if args and name.startswith(args[0][:1]):
                self.get_command(ctx, name)
        return super().resolve_command(ctx, args)


def load(name: str) -> Command:
    """The click command of `kore_cli.commands.NAME`: a group where the module has an `app`."""
    stem = name.replace("-", "_")
    module = importlib.import_module(f"kore_cli.commands.{stem}")
    inner = getattr(module, "app", None)
    if inner is None:
        inner = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)
        inner.command(name, cls=KoreCommand)(getattr(module, stem))
    else:
        inner._add_completion = False
        for info in inner.registered_commands:
            info.cls = KoreCommand
    command = typer.main.get_command(inner)
    command.name = name
    return command


def walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below (and with) this one, with the words that call it."""
    yield path, command
    if isinstance(command, TyperGroup):
        context = Context(command)
        for name in command.list_commands(context):
            yield from walk(command.get_command(context, name), (*path, name))
