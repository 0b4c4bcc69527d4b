"""The kore calibrate command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kore_cli import options
from kore_cli.schema_options import with_settings


@with_settings(
    "model.id=--model",
    "calibrate.samples",
    "calibrate.count=--count -n",
    "calibrate.with_answers",
    "calibrate.held_out",
    "calibrate.layers",
    "calibrate.new",
    "calibrate.memory",
    "calibrate.seed",
)
def calibrate(
    settings: dict[str, Any],
    profile: options.ProfileName = "",
    adapter: Annotated[
        Path | None,
        typer.Option(
            "--adapter", help="Finished run (folder or name): calibrate the model with its adapter."
        ),
    ] = None,
    out: options.Out = None,
    offload: Annotated[
        bool, typer.Option("--offload", help="Read weights from disk, one decoder layer at a time.")
    ] = False,
    factors: Annotated[
        bool, typer.Option("--factors", help="Also compute the frozen A, for kore train to use.")
    ] = False,
    download: options.Download = False,
    restart: options.Restart = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Collect the covariance of the model's inputs on old samples, which training then leaves untouched.

    Example: kore calibrate --samples demo
    """
    from dataclasses import replace

    from kore.artifacts.run import locate
    from kore.config.schema import ONEVISION_SUBSETS
    from kore.distributed import join, launched
    from kore.errors import UsageError
    from kore.io.files import check_place
    from kore.models.linear_table import linear_lines
    from kore.nullspace.layer_selection import parse_share
    from kore.workflows.calibrate_run import CalibrateJob
    from kore.workflows.sequential import read_earlier
    from kore_cli.output import Output

    earlier = locate(adapter) if adapter else None
    output = Output(json_mode=as_json, quiet=quiet or not launched().first)
    resolved = options.resolve(
        output, profile, settings, "calibrate.samples", "adapter.rank", after=earlier, download=download
    )
    if "calibrate.count" in settings:
        # of onevision, -n counts each of its categories
        section = resolved.profile.calibrate
        whole = f"onevision:{len(ONEVISION_SUBSETS) * section.count}"
        drawn = [whole if text == "onevision" else text for text in section.samples]
        section = section.model_copy(update={"samples": drawn})
        resolved = replace(resolved, profile=resolved.profile.model_copy(update={"calibrate": section}))
    if "calibrate.new" in settings and parse_share(resolved.profile.calibrate.layers) is None:
        raise UsageError("--new has no effect without --layers auto", hint="add --layers auto, or auto:SHARE")
    with join() as world:
        output = Output(json_mode=as_json, quiet=quiet or not world.first)
        job = CalibrateJob(
            resolved.profile,
            out,
            download=download,
            offload=offload,
            on_note=output.warn,
            earlier=read_earlier(earlier) if earlier else None,
            factors=factors,
        )
        for line in job.lines():
            output.note(line)
        if dry_run:
            check_place(job.out)
            job.check_room()
            choice = job.choice.to_json() if job.choice else None
            rows = job.linears
            for line in linear_lines(rows):
                output.note(line)
            if world.first:
                linears = [row.to_json() for row in rows]
                output.result(
                    {"out": str(job.out), **job.plan.to_json(), "choice": choice, "linears": linears}
                )
            return
        with output.steps("calibrate") as progress:
            made = job.run(restart=restart, progress=progress)
        kept = None
        if factors:
            with output.steps("null space") as progress:
                kept = job.keep_factors(made, progress)
        if not world.first:
            return
        facts = made.manifest.facts
        output.result(
            {
                "out": str(made.folder),
                "label": made.label,
                "sites": len(made.sites),
                "tokens": facts["tokens"],
                "seconds": facts.get("seconds"),
                "fingerprint": made.manifest.fingerprint,
                **({"factors": str(kept)} if kept else {}),
            }
        )
