"""The kore calibrate command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kore_cli import options


def calibrate(
    samples: Annotated[
        list[str] | None,
        typer.Option(
            "--samples", help="demo[:SUITE], onevision, FILE.jsonl or bench:NAME, with :COUNT; repeatable."
        ),
    ] = None,
    profile: options.ProfileName = "tiny",
    model: options.Model = None,
    adapter: Annotated[
        Path | None,
        typer.Option("--adapter", help="A finished run: calibrate the model as that run left it."),
    ] = None,
    out: options.Out = None,
    count: Annotated[
        int | None, typer.Option("-n", "--count", help="Samples per source (onevision: per category).")
    ] = None,
    with_answers: Annotated[
        bool | None, typer.Option("--with-answers", help="Sum the answers' tokens too.")
    ] = None,
    held_out: Annotated[
        int | None, typer.Option("--held-out", help="More samples per source, to measure interference on.")
    ] = None,
    layers: Annotated[str | None, typer.Option("--layers", help="all, 0-3, 0,5,7 or auto[:SHARE].")] = None,
    new: Annotated[
        str | None, typer.Option("--new", metavar="FILE", help="New samples, which --layers auto looks at.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", help="Budget for sums and hidden states, e.g. 8GiB.")
    ] = None,
    offload: Annotated[
        bool, typer.Option("--offload", help="Read weights from disk one decoder layer at a time.")
    ] = False,
    factors: Annotated[
        bool, typer.Option("--factors", help="Make the adapter's frozen A too, for kore train to find.")
    ] = False,
    seed: options.Seed = None,
    setting: options.Set = None,
    download: options.Download = False,
    restart: options.Restart = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Sum the covariances of what the model already knows, so that training can keep out of their way.

    Example: kore calibrate --samples demo
    """
    from kore.config.resolve import resolve
    from kore.config.schema import ONEVISION_SUBSETS
    from kore.errors import UsageError
    from kore.io.files import check_place
    from kore.models.families import linear_lines
    from kore.nullspace.layer_selection import parse_share
    from kore.nullspace.parallel import Ranks
    from kore.workflows.calibrate_run import CalibrateJob
    from kore.workflows.sequential import read_earlier
    from kore_cli.output import Output

    flags = {
        "model.id": model,
        "calibrate.samples": samples,
        "calibrate.count": count,
        "calibrate.with_answers": with_answers,
        "calibrate.held_out": held_out,
        "calibrate.layers": layers,
        "calibrate.new": new,
        "calibrate.memory": memory,
        "calibrate.seed": seed,
    }
    settings = options.given(setting, flags)
    resolved = resolve(profile, settings)
    if count is not None:
        # of onevision, -n counts each of its categories
        section = resolved.profile.calibrate
        whole = f"onevision:{len(ONEVISION_SUBSETS) * section.count}"
        drawn = [whole if text == "onevision" else text for text in section.samples]
        resolved = resolve(profile, {**settings, "calibrate.samples": drawn})
    if new is not None and parse_share(resolved.profile.calibrate.layers) is None:
        raise UsageError("--new has no effect without --layers auto", hint="add --layers auto, or auto:SHARE")
    ranks = Ranks.join()
    output = Output(json_mode=as_json, quiet=quiet or ranks.rank > 0)
    job = CalibrateJob(
        resolved.profile,
        out,
        download=download,
        offload=offload,
        on_note=output.warn,
        earlier=read_earlier(adapter) if adapter else None,
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
        if ranks.rank == 0:
            linears = [row.to_json() for row in rows]
            output.result({"out": str(job.out), **job.plan.to_json(), "choice": choice, "linears": linears})
        return
    with output.progress("calibrate", job.plan.layers) as advance:
        made = job.run(restart=restart, on_layer=lambda done: advance(1, f"layer {done.layer}"))
    if ranks.rank > 0:
        return
    kept = None
    if factors:
        with output.progress("null space", len(made.sites)) as advance:
            kept = job.keep_factors(made, lambda done, _: advance(1, made.sites[done - 1].name))
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
