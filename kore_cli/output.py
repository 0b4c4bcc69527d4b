"""The only place that prints: data to stdout, everything else to stderr, colour and progress on terminals.

rich is imported on use, never at start.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from kore.errors import DataWarning, Interrupted, KoreError
from kore.io.files import json_text
from kore.progress import repeated

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from kore.progress import Progress

PIPE_WIDTH = 120  # columns of a table that does not go to a terminal
GAIN, LOSS = "green", "red"


@dataclass(frozen=True)
class Figure:
    """A table's cell: a number, and by how much it is better (above 0) or worse; None where that is open."""

    value: float | None
    gain: float | None = None
    signed: bool = False

    def __str__(self) -> str:
        return f"{self.value:+.2f}" if self.signed and self.value else _cell(self.value)

    @property
    def style(self) -> str:
        """Green for a gain, red for a loss."""
        return "" if not self.gain else GAIN if self.gain > 0 else LOSS


class Output:
    """Where a command's output goes.

    Args:
        json_mode: data as JSON even on a terminal.
        quiet: nothing on stderr but errors.
    """

    def __init__(self, *, json_mode: bool = False, quiet: bool = False) -> None:
        self.json_mode = json_mode
        self.quiet = quiet
        _EngineWarnings.quiet = quiet
        self.human = sys.stdout.isatty() and not json_mode
        self.live = sys.stderr.isatty() and not quiet and os.environ.get("TERM") != "dumb"

    def note(self, text: str) -> None:
        """One line for a person, on stderr."""
        if not self.quiet:
            print(harmless(text), file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """A warning, on stderr."""
        self.note(f"warning: {text}")

    def line(self, text: str) -> None:
        """One line of data as it is, on stdout."""
        print(text, flush=True)

    def piece(self, text: str) -> None:
        """A part of a line of data, on stdout, flushed."""
        print(text, end="", flush=True)

    def record(self, value: object) -> None:
        """One JSON line on stdout."""
        print(json_text(value), flush=True)

    def result(self, value: Mapping[str, Any], text: str | None = None) -> None:
        """A command's result: JSON with --json or in a pipe, else `text`, by default a table."""
        if not self.human:
            self.record(value)
        elif text is not None:
            self.line(text)
        else:
            self.facts(value)

    def facts(self, value: Mapping[str, Any]) -> None:
        """Names and values in two columns; what is nested is indented, lists of objects are tables."""
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        tables: list[tuple[str, list[Mapping[str, Any]]]] = []
        for name, fact in _flat(value, tables):
            grid.add_row(Text(harmless(name), "" if _no_colour() else "cyan"), Text(harmless(fact)))
        self._print(grid)
        for name, rows in tables:
            self.table(rows, list(dict.fromkeys(key for row in rows for key in row)), title=name)

    def table(
        self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], title: str = "", *, err: bool = False
    ) -> None:
        """A table for people: numbers right-aligned; on a terminal gains green and losses red."""
        from rich.table import Table

        if err and self.quiet:
            return
        table = Table(
            title=title or None,
            title_justify="left",
            box=None,
            pad_edge=False,
            header_style="" if _no_colour() else "bold cyan",
            title_style="" if _no_colour() else "italic",
        )
        for column in columns:
            numeric = all(isinstance(row.get(column), (int, float, Figure, type(None))) for row in rows)
            table.add_column(_text(column), justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*(_text(row.get(column)) for column in columns))
        self._print(table, err=err)

    def _print(self, table: Table, *, err: bool = False) -> None:
        from rich.console import Console

        terminal = (sys.stderr if err else sys.stdout).isatty()
        Console(stderr=err, width=None if terminal else PIPE_WIDTH, highlight=False).print(table)

    def drawing(self, drawn: RenderableType) -> None:
        """A rich renderable, for people, on stdout."""
        from rich.console import Console

        Console(highlight=False).print(drawn)

    def pictures(self, titled: Sequence[tuple[str, Sequence[Sequence[float]]]]) -> None:
        """Matrices side by side as heat maps, in colour or in shades."""
        from rich.console import Console
        from rich.segment import Segment, Segments

        from kore_cli.widgets.heatmap import side_by_side

        console = Console(highlight=False)
        colour = console.color_system in ("256", "truecolor") and not console.no_color
        for cells in side_by_side(titled, console.width, colour=colour):
            console.print(Segments([*cells, Segment.line()]), end="")

    @contextmanager
    def progress(self, label: str, total: int | None = None) -> Iterator[Callable[..., None]]:
        """A progress bar on a terminal; elsewhere a line at least every 30 s, also while nothing advances.
        Yields ``advance(n=1, note="")``."""
        if not self.live:
            start = time.monotonic()
            with repeated(self.note, label, total) as advance:
                yield advance
            self.note(f"{label}: done in {time.monotonic() - start:.0f} s")
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = [
            TextColumn("{task.description}"),
            BarColumn(24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        ]
        with Progress(*columns, console=Console(stderr=True), transient=False) as bar:
            task = bar.add_task(label, total=total, note="")

            def advance(n: float = 1, note: str = "") -> None:
                bar.update(task, advance=n, note=note)

            yield advance

    @contextmanager
    def steps(self, label: str) -> Iterator[Progress]:
        """A progress sink that draws one bar, whatever the stage; its length is set later."""
        with ExitStack() as stack:
            advance: Callable[..., None] | None = None
            before = 0

            def report(stage: str, done: int, total: int | None = None, note: str = "") -> None:
                nonlocal advance, before
                if advance is None:
                    advance = stack.enter_context(self.progress(label, total))
                advance(done - before, note)
                before = done

            yield report


def keep_stdout_clean() -> None:
    """Send what libraries print to stderr, or drop it: standard output is data.

    DeepSpeed, which transformers imports where it is installed, logs to standard output on import; a
    filter on its logger survives the handler and level that it then sets.
    """
    import warnings

    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller: nobody reads it
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        # records are UTF-8 whatever the locale; file names may hold any bytes
        encoding = sys.stdout.encoding if sys.stdout.isatty() else "utf-8"
        sys.stdout.reconfigure(encoding=encoding, errors="surrogateescape")

    def to_stderr(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            print(record.getMessage(), file=sys.stderr)
        return False

    logging.getLogger("DeepSpeed").addFilter(to_stderr)
    if os.environ.get("KORE_DEBUG") != "1":
        warnings.simplefilter("ignore", FutureWarning)
    logging.getLogger("kore").addHandler(_EngineWarnings())
    show = warnings.showwarning

    def show_data_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, DataWarning):
            _EngineWarnings.report(str(message))
        else:
            show(message, category, *place, **more)

    warnings.showwarning = show_data_warning


class _EngineWarnings(logging.Handler):
    """Prints what the engine warns of, unless the command is quiet (as all ranks but the first are)."""

    quiet: ClassVar[bool] = False

    def emit(self, record: logging.LogRecord) -> None:
        """Print one warning."""
        self.report(record.getMessage())

    @classmethod
    def report(cls, text: str) -> None:
        """Print a warning on stderr."""
        if not cls.quiet:
            complain(text, word="warning")


def fail(error: KoreError) -> None:
    """Print an expected failure on stderr: what happened, then details and the next step."""
    complain(*error.lines(), word="stopped" if isinstance(error, Interrupted) else "error")


def complain(what: str, *more: str | None, word: str = "error") -> None:
    """Print what went wrong, then details and the next step, one line each, on stderr."""
    lines = [f"{word}: {what}", *(f"  {line}" for line in more if line)]
    with suppress(OSError):  # nobody listens on stderr either
        print(
            *(harmless(" ".join(line.splitlines())) for line in lines), sep="\n", file=sys.stderr, flush=True
        )


def trace(error: BaseException) -> None:
    """With ``KORE_DEBUG=1``, print the traceback of an error that is reported as a message."""
    if os.environ.get("KORE_DEBUG") == "1":
        traceback.print_exception(error)


# operating system commands (titles, links, the clipboard), sequences, and single characters
_CONTROL = re.compile(
    "(?:\x1b\\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c)?"
    "|(?:\x1b\\[|\x9b)[0-9;:?]*[ -/]*[@-~]?"
    "|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


def harmless(text: str) -> str:
    """A text of the data without the control characters that a terminal would obey."""
    return _CONTROL.sub("", text)


def _no_colour() -> bool:
    return bool(os.environ.get("NO_COLOR"))


def _text(value: object) -> Text:
    """A cell's text as it is: brackets are no markup."""
    from rich.text import Text

    return Text(harmless(_cell(value)), value.style if isinstance(value, Figure) else "")


def _flat(
    value: Mapping[str, Any], tables: list[tuple[str, list[Mapping[str, Any]]]], indent: str = ""
) -> Iterator[tuple[str, str]]:
    """Names and texts of a nested object; lists of objects are added to `tables`."""
    for name, fact in value.items():
        if fact in (None, {}, []) or (name == "v" and not indent):
            continue
        if isinstance(fact, Mapping):
            yield f"{indent}{name}", ""
            yield from _flat(fact, tables, indent + "  ")
        elif isinstance(fact, (list, tuple)) and all(isinstance(row, Mapping) for row in fact):
            tables.append((name, list(fact)))
        else:
            yield f"{indent}{name}", _cell(fact)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) < 1000 and (value == 0 or abs(value) >= 0.01) else f"{value:.3g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_cell(fact)}" for name, fact in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_cell, value))
    return str(value)
