"""The kore study command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kore_cli import options

if TYPE_CHECKING:
    from kore_cli.output import Output


def study(
    plan: Annotated[
        Path | None, typer.Argument(help="A plan (TOML); none: every method once on the demo's data, small.")
    ] = None,
    methods: Annotated[
        str | None, typer.Option("--methods", "-m", help="Rows, with commas: kore,lora,replay,lora-raw,rag.")
    ] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, help="Seeds per method.")] = None,
    parts: Annotated[
        str | None,
        typer.Option("--parts", help="methods, ablation, ranks, augmentation, specific; with commas."),
    ] = None,
    ranks: Annotated[
        str | None, typer.Option("--ranks", help="KORE's ranks for the sweep, with commas.")
    ] = None,
    max_steps: Annotated[int | None, typer.Option("--max-steps", min=1, help="Steps of every trial.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Questions per suite.")] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", "-p", help="A profile's name or TOML file.")
    ] = None,
    jobs: Annotated[
        int,
        typer.Option("--jobs", "-j", min=1, help="Trials side by side, each with its share of the cores."),
    ] = 1,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Train nothing: report what there is, and what is missing.")
    ] = False,
    out: options.Out = None,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare methods on the same data: tables, curves, plots. The same command goes on with a study.

    Example: kore study --methods kore,lora,replay --seeds 3
    """
    import shlex
    import sys

    from kore.studies.method_study.run import run_study
    from kore.studies.method_study.study import trainings
    from kore.studies.method_study.validate import check_data, read_plan
    from kore_cli.output import Output
    from kore_cli.render.progress_display import story

    output = Output(json_mode=as_json, quiet=quiet)
    chosen = read_plan(
        plan,
        {
            "methods": options.names([methods]) if methods else None,
            "seeds": seeds,
            "parts": options.names([parts]) if parts else None,
            "ranks": _numbers(ranks) if ranks else None,
            "max_steps": max_steps,
            "limit": limit,
            "profile": profile,
        },
    )
    check_data(chosen)
    if dry_run:
        counts = {"trainings": trainings(chosen), "with_further": trainings(chosen, chosen.further)}
        output.result({**chosen.model_dump(mode="json"), **counts})
        return
    command = shlex.join(["kore", *(a for a in sys.argv[1:] if a != "--report-only")])
    with story(output) as progress:
        value = run_study(chosen, out, progress=progress, jobs=jobs, make=not report_only, command=command)
    if value["missing"]:
        output.warn(f"{len(value['missing'])} rows are missing; the report says which and why")
    if not output.human:
        output.record(value)
        return
    _print(output, value)


def _print(output: Output, value: dict[str, Any]) -> None:
    from kore.studies.method_study.plot import named, text_losses
    from kore.studies.method_study.tables import PARTS

    columns = ["label", "params", "cem", "f1", "k_a", "k_r", "k_r_near", "avg", "hars", "area", "k_r_at"]
    for part, rows in value["tables"].items():
        output.table(rows, columns, title=PARTS.get(part, part))
    if value["gains"]:
        output.table(value["gains"], ["label", "own", "others"], title="Gain over the general covariance")
    output.line("\n".join(text_losses(named(value["losses"], value["penalty_included"]))))
    for path in value["files"]:
        output.line(path)


def _numbers(ranks: str) -> list[int]:
    from kore.errors import UsageError

    try:
        return [int(rank) for rank in ranks.split(",")]
    except ValueError as error:
        raise UsageError(f"--ranks takes whole numbers with commas, not {ranks}") from error
