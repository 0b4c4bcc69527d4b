"""The kore calibrate command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kore_cli import options
from kore_cli.schema_options import with_settings

if TYPE_CHECKING:
    from kore.workflows.calibrate_run import CalibrateJob
    from kore_cli.output import Output


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
    from kore.artifacts.run import locate
    from kore.data.read import check_records
    from kore.data.records import Sample
    from kore.distributed import join, launched
    from kore.nullspace.sources import parse_sources
    from kore_cli.output import Output

    earlier = locate(adapter) if adapter else None
    output = Output(json_mode=as_json, quiet=quiet or not launched().first)
    resolved = options.resolve(
        output, profile, settings, "calibrate.samples", "adapter.rank", after=earlier, download=download
    )
    sources = parse_sources(resolved.profile.calibrate.samples, 1)
    check_records(Sample, *(source.name for source in sources if source.kind == "file"))
    # torch is loaded once the samples are known to be sound
    from kore.workflows.calibrate_run import CalibrateJob, each_category
    from kore.workflows.sequential import read_earlier

    chosen = each_category(resolved.profile) if "calibrate.count" in settings else resolved.profile
    with join():
        job = CalibrateJob(
            chosen,
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
            _dry_run(output, job)
        else:
            _run(output, job, factors=factors, restart=restart)


def _dry_run(output: Output, job: CalibrateJob) -> None:
    from kore.distributed import launched
    from kore.io.files import check_place
    from kore.models.linear_table import linear_lines

    check_place(job.out)
    job.check_room()
    for line in linear_lines(job.linears):
        output.note(line)
    if launched().first:
        output.result(job.to_json())


def _run(output: Output, job: CalibrateJob, *, factors: bool, restart: bool) -> None:
    from kore.distributed import launched

    with output.steps("calibrate") as progress:
        made = job.run(restart=restart, progress=progress)
    kept = None
    if factors:
        with output.steps("null space") as progress:
            kept = job.keep_factors(made, progress)
    if not launched().first:
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
