"""The kore study command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kore_cli import options


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
    max_steps: Annotated[int | None, typer.Option("--max-steps", help="Steps of every trial.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Questions per suite.")] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", "-p", help="A profile's name or TOML file.")
    ] = None,
    out: options.Out = None,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare methods on the same data: tables, curves, plots. The same command goes on with a study.

    Example: kore study --methods kore,lora,replay --seeds 3
    """
    from kore.pipeline.study import run_study
    from kore.pipeline.study_plan import read_plan
    from kore_cli.output import Output
    from kore_cli.story import story

    output = Output(json_mode=as_json, quiet=quiet)
    chosen = read_plan(
        plan,
        {
            "methods": methods.split(",") if methods else None,
            "seeds": seeds,
            "parts": parts.split(",") if parts else None,
            "ranks": [int(r) for r in ranks.split(",")] if ranks else None,
            "max_steps": max_steps,
            "limit": limit,
            "profile": profile,
        },
    )
    if dry_run:
        output.result({**chosen.model_dump(mode="json"), "trainings": chosen.trainings()})
        return
    with story(output) as progress:
        value = run_study(chosen, out, progress=progress, note=output.warn)
    if output.human:
        columns = ["label", "params", "cem", "f1", "k_a", "k_r", "k_r_near", "avg", "hars", "area"]
        for part, rows in value["tables"].items():
            output.table(rows, columns, title=part)
        output.line("\n".join(value["losses"]))
        for path in value["files"]:
            output.line(path)
        return
    output.record(value)
