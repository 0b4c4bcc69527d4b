"""Options that several commands share, each defined once. Imports nothing but typer."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from kore.config.resolve import Resolved
    from kore_cli.output import Output


DATA = "Data and output"


def data_option(*flags: str, **more: Any) -> Any:
    """An option for a file or folder, shown in its own section of the help."""
    return typer.Option(*flags, rich_help_panel=DATA, **more)


class Images(StrEnum):
    """How images are drawn in a terminal."""

    auto = "auto"
    blocks = "blocks"
    off = "off"


def _profile_names() -> list[str]:
    """For completion: the profiles that ship, read from the folder's names alone."""
    from kore.config.resolve import shipped_names

    return shipped_names()


ProfileName = Annotated[
    str,
    typer.Option(
        "--profile",
        "-p",
        envvar="KORE_PROFILE",
        help="Profile name or TOML file (kore profiles list); default: the profile of the model, else rules "
        "of its family.",
        autocompletion=_profile_names,
    ),
]
AskedProfile = Annotated[
    str,
    typer.Option(
        "--profile",
        "-p",
        envvar="KORE_PROFILE",
        help="Profile name or TOML file; default: the settings of the run, else the profile of its model.",
        autocompletion=_profile_names,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one setting, e.g. train.lr=2e-4."),
]
Json = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no notes.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything and print the cost; write nothing.")
]
Restart = Annotated[
    bool,
    typer.Option("--restart", help="Start over: discard what an earlier call wrote to the folder."),
]
Out = Annotated[Path | None, data_option("--out", "-o", metavar="DIR", help="Output folder.")]
DataDir = Annotated[
    Path | None,
    data_option(
        "--data-dir",
        envvar="KORE_DATA",
        metavar="DIR",
        help="Folder of benchmark files (default: $LMUData, else ~/LMUData).",
    ),
]
Limit = Annotated[
    int | None, data_option("--limit", min=1, metavar="N", help="Only the first N samples of each suite.")
]
Split = Annotated[
    str, data_option("--split", metavar="NAME", help="test or validation, for suites that have both.")
]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of everything random.")]
Model = Annotated[
    str | None,
    typer.Option("--model", help="A model folder or hub id; default: the profile's, else kore-tiny."),
]
Rag = Annotated[
    Path | None,
    typer.Option(
        "--rag", help="Compare with retrieval: the base reads the text of the nearest item (items or a tree)."
    ),
]
Download = Annotated[
    bool, typer.Option("--download", help="Allow downloading a model that is not in the local cache.")
]


def on_command_line(context: typer.Context, name: str) -> bool:
    """Whether a parameter was given as an option, not by a variable or a default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def overrides(texts: list[str] | None) -> dict[str, str]:
    """``--set KEY=VALUE`` as key -> value.

    Raises:
        UsageError: without a key or an equals sign.
    """
    from kore.errors import UsageError

    found = {}
    for text in texts or []:
        key, sign, value = text.partition("=")
        if not sign or not key.strip():
            raise UsageError(f"--set {text}: expected KEY=VALUE")
        found[key.strip()] = value.strip()
    return found


def names(texts: list[str] | None) -> list[str]:
    """The names of an option that may be repeated and holds several with commas, in their order."""
    return [name.strip() for text in texts or [] for name in text.split(",") if name.strip()]


def resolve(
    output: Output,
    profile: str,
    flags: dict[str, Any],
    *keys: str,
    after: Path | None = None,
    download: bool = False,
) -> Resolved:
    """The settings of a command that works on a model; which were chosen, and why, goes to stderr.

    Args:
        flags: see `given`.
        keys: the settings that the line shows.
        after: an earlier run or adapter, whose model it is unless one is named.
    """
    from kore.config.model_defaults import resolve_training

    resolved = resolve_training(profile, flags, after=after, download=download)
    report(output, resolved, *keys)
    return resolved


def report(output: Output, resolved: Resolved, *keys: str) -> None:
    """Report which settings were chosen, and why, on stderr."""
    from kore.config.model_defaults import describe, misplaced_toy

    if line := describe(resolved, *keys):
        output.note(line)
    if warning := misplaced_toy(resolved):
        output.warn(warning)


def given(texts: list[str] | None, flags: dict[str, Any]) -> dict[str, Any]:
    """What `resolve_layers` gets: the flags that were given, and ``--set`` over them.

    Args:
        flags: dotted key -> value; None where the flag was not given.

    Raises:
        UsageError: see `overrides`.
    """
    return {**{key: value for key, value in flags.items() if value is not None}, **overrides(texts)}
