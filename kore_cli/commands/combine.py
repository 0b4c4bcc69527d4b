"""The kore combine command: joins the parts of one augmentation, or sums covariances."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kore_cli.options import Json, Quiet, Restart


def combine(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Parts of one tree, or covariances.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where to write.")],
    weights: Annotated[
        str | None,
        typer.Option("--weights", metavar="W,W...", help="Of covariances: one positive number each."),
    ] = None,
    restart: Restart = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Join the parts that --shard made, or sum covariances of the same model."""
    from kore.artifacts.manifest import read_manifest
    from kore.errors import UsageError
    from kore_cli.output import Output

    output = Output(json_mode=json_, quiet=quiet)
    kinds = {read_manifest(folder).kind for folder in folders}
    if len(kinds) != 1:
        raise UsageError(f"these are of different kinds: {', '.join(sorted(kinds))}")
    match kinds.pop():
        case "covariance":
            from kore_cli.commands.combine_covariance import combine as combine_covariance

            combine_covariance(folders, out, output, weights=numbers(weights), restart=restart)
        case "tree" if weights is not None:
            raise UsageError("--weights are for covariances, these are parts of a tree")
        case "tree":
            from kore.augment.sharding import join

            report = join(folders, out, restart=restart)
            output.result({"v": 1, "folder": str(out), "parts": len(folders), **report.values["statistics"]})
        case kind:
            raise UsageError(
                f"folders of kind {kind} cannot be combined", hint="parts of a tree, or covariances"
            )


def numbers(text: str | None) -> list[float] | None:
    """``1,0.5`` as numbers.

    Raises:
        UsageError: not numbers.
    """
    from kore.errors import UsageError

    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--weights {text}: expected numbers", hint="for example --weights 1,0.5") from error
