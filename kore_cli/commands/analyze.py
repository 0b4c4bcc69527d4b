"""The kore analyze commands: what covariances capture, and how they look."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kore_cli import options
from kore_cli.help import KoreGroup
from kore_cli.options import data_option

if TYPE_CHECKING:
    from kore.studies.truncation_study.plan import CaptureRequest
    from kore_cli.output import Output

app = typer.Typer(
    help="What covariances capture of old knowledge: a study, and heat maps.",
    no_args_is_help=True,
    cls=KoreGroup,
    rich_markup_mode=None,
)


@app.command()
def capture(
    components: Annotated[
        str,
        typer.Option(
            "--components", "-k", metavar="N|X%,...", help="How many to drop, each in turn: 32,64 or 10%,25%."
        ),
    ],
    suite: Annotated[
        list[str] | None,
        data_option("--suite", "-s", help="Suites as in kore eval, with commas; default: the profile's."),
    ] = None,
    covariance: Annotated[
        list[Path] | None,
        data_option("--covariance", metavar="DIR", help="A covariance of this model; repeatable."),
    ] = None,
    samples: Annotated[
        list[str] | None,
        data_option("--samples", metavar="SOURCE", help="Old samples, as in kore calibrate; repeatable."),
    ] = None,
    counts: Annotated[
        str | None,
        data_option("--counts", metavar="N,N", help="Samples of each source: 32,256."),
    ] = None,
    methods: Annotated[
        str,
        typer.Option("--methods", "-m", help="plain, asvd, cosvd, cosvd-root (least output error)."),
    ] = "plain,asvd,cosvd",
    model: options.Model = None,
    profile: options.ProfileName = "",
    limit: options.Limit = None,
    split: options.Split = "test",
    data_dir: options.DataDir = None,
    out: options.Out = None,
    setting: options.Set = None,
    download: options.Download = False,
    restart: options.Restart = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Rebuild a model without its smallest components, by plain SVD, ASVD and CO-SVD, and score what is left.

    Weights on disk stay as they are. The same command goes on with a study that was stopped.

    Example: kore analyze capture -k 64,128,192 -s easy-vqa --samples demo:easy-vqa --samples demo:text
    """
    import shlex
    import sys

    from kore.evaluation.run_eval import Request
    from kore.studies.truncation_study.captured_energy import parse_drops, parse_methods
    from kore.studies.truncation_study.plan import CaptureRequest, parse_counts
    from kore_cli.output import Output

    output = Output(json_mode=as_json, quiet=quiet)
    asked = Request(
        target=model or "",
        suites=options.names(suite),
        data=data_dir,
        profile=profile,
        settings=options.overrides(setting),
        split=split,
        limit=limit,
        download=download,
    )
    options.report(output, asked.resolved(), "eval.max_new_tokens")
    request = CaptureRequest(
        evaluation=asked,
        drops=parse_drops(components),
        methods=parse_methods(methods),
        covariances=covariance or [],
        samples=samples or [],
        counts=parse_counts(counts) if counts else [],
        out=out,
        command=shlex.join(["kore", *sys.argv[1:]]),
    )
    _run_capture(output, request, dry_run=dry_run, restart=restart)


def _run_capture(output: Output, request: CaptureRequest, *, dry_run: bool, restart: bool) -> None:
    from contextlib import closing

    from kore.studies.truncation_study.plan import CapturePlan
    from kore.studies.truncation_study.report import files
    from kore.studies.truncation_study.run import run_capture
    from kore_cli.render.progress_display import story
    from kore_cli.render.truncation_study import print_capture

    with closing(CapturePlan(request, output.warn)) as plan:
        if dry_run:
            output.result(plan.to_json())
            return
        with story(output) as progress:
            value = run_capture(plan, restart=restart, progress=progress)
    print_capture({**value, "out": str(plan.out)}, output)
    for path in files(plan.out):
        output.note(f"written: {path}")


@app.command()
def heatmap(
    covariance: Annotated[list[Path], typer.Argument(help="Covariances of one model.")],
    layers: Annotated[
        str | None, typer.Option("--layers", help="all, 0-3 or 0,5,7; default: first, middle and last.")
    ] = None,
    sites: Annotated[
        str | None,
        typer.Option("--sites", help="qkv, o, gate_up, down, with commas, or all; default: the first."),
    ] = None,
    size: Annotated[int, typer.Option("--size", min=2, max=512, help="Cells per side.")] = 32,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also draw them into this PNG.")] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show |C| of chosen inputs side by side over covariances: alike tasks light up alike channels.

    Example: kore analyze heatmap runs/covariance/easy-vqa runs/covariance/text --layers 0,4
    """
    from kore.nullspace.heatmaps import check_plots, chosen, draw, maps, open_covariances
    from kore_cli.output import Output

    output = Output(json_mode=as_json, quiet=quiet)
    if out is not None:
        check_plots()
    covariances = open_covariances(covariance)
    names = chosen(covariances, layers, sites)
    found = list(maps(covariances, names, size))
    for name in names:
        mine = [m for m in found if m.name == name]
        if output.human:
            side = f"{mine[0].d_in} in {mine[0].size}"
            output.line(f"{name}: |C| per token, {side} a side; before each name its cosine with the first")
            output.pictures([(f"{m.alike:.3f} {m.covariance}", m.values) for m in mine])
        else:
            for m in mine:
                output.record(m.to_json())
    if out is not None:
        output.note(f"written: {draw(found, out)}")
