"""The kore show command: tells what an artefact is, by its manifest or its first record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kore_cli.options import Json

SHOWN = "it shows items, trees, samples, covariances, adapters, runs and evaluations"


def show(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="PATH", help="A folder or file that KORE wrote or reads, or a run's name."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="Instead of PATH: show which linears of a model are adapted. A folder, a hub id in the "
            "cache, or a shipped architecture; only its config.json is read.",
        ),
    ] = None,
    id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="One item, sample or question of it.")
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option(
            "--rank", metavar="R", min=1, help="Of a covariance: the energy in the R smallest directions."
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Tell what any artefact is: items, tree, samples, covariance, adapter, run, result."""
    from kore.artifacts.run import locate, runs_in
    from kore.errors import DataError, MissingArtefact, UsageError
    from kore_cli.output import Output

    output = Output(json_mode=json_)
    if path is None or model is not None:
        if path is not None or model is None:
            raise UsageError("kore show takes a PATH, or --model MODEL")
        from kore_cli.render.linears import show_model

        show_model(model, output)
        return
    path = locate(path)
    if not path.exists():
        raise MissingArtefact(f"no such file or folder: {path}")
    kind = kind_of(path)
    if kind is None and len(found := runs_in(path)) > 1:
        from kore_cli.render.runs import list_runs, print_runs

        print_runs(output, list_runs(found))
        return
    if kind is None and found:
        path, kind = found[0].folder, "run"
    match kind:
        case "tree":
            from kore_cli.render.tree import show_tree

            show_tree(path, output, id)
        case "covariance":
            from kore_cli.render.covariance import show as show_covariance

            show_covariance(path, output, rank)
        case "records":
            from kore_cli.render.records import show_records

            show_records(path, output, id)
        case "capture":
            from kore_cli.render.truncation_study import show_capture

            show_capture(path, output)
        case "study":
            from kore_cli.render.study import show_study

            show_study(path, output)
        case "run" | "adapter" | "eval" | "export":
            from kore_cli.render.result import show_result

            show_result(path, kind, output)
        case _:
            inside = [p.name for p in sorted(path.iterdir()) if _has_one(p)] if path.is_dir() else []
            hint = f"it holds some: {', '.join(inside[:8])}" if inside else SHOWN
            raise DataError(f"not an artefact of KORE: {path}", hint=hint)


def _has_one(path: Path) -> bool:
    """Whether an artefact lies there, whatever state it is in."""
    from kore.artifacts.manifest import NAME
    from kore.artifacts.run import ADAPTER
    from kore.artifacts.run import NAME as RUN

    return any((path / name).is_file() for name in (RUN, NAME, ADAPTER))


def kind_of(path: Path) -> str | None:
    """Which kind of artefact lies at `path`; None if none that is known."""
    from kore.artifacts.manifest import NAME, read_manifest
    from kore.artifacts.run import ADAPTER
    from kore.artifacts.run import NAME as RUN
    from kore.data.objects import is_records

    if path.is_file():
        return "records" if is_records(path) else None
    if (path / RUN).exists():
        return "run"
    if (path / NAME).exists():
        return read_manifest(path).kind
    if (path / ADAPTER).exists():
        return "adapter"
    if (path / "summary.json").exists():  # an injection's own evaluation
        return "eval"
    return None
