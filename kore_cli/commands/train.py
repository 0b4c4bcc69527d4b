"""The kore train command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kore_cli import options
from kore_cli.options import data_option
from kore_cli.schema_options import with_settings

if TYPE_CHECKING:
    from kore.workflows.train_run import TrainRequest


Data = Annotated[
    str | None,
    data_option("--data", "-d", help="Samples: JSONL, a JSON list, or - for stdin."),
]
CovarianceFolder = Annotated[
    Path | None,
    data_option("--covariance", "-c", help="Folder written by kore calibrate."),
]
NewCovariance = Annotated[
    Path | None,
    data_option("--new-covariance", help="Covariance of the new samples, for --contrast."),
]
Old = Annotated[
    Path | None,
    data_option("--old", help="Old samples, for methods that train on them and for probes."),
]
After = Annotated[
    Path | None,
    data_option(
        "--after", help="Earlier run (folder or name): continue on its model and keep its knowledge."
    ),
]
Probes = Annotated[
    Path | None,
    data_option("--probes", help="Questions to evaluate while training (JSONL)."),
]
ImageRoot = Annotated[
    Path | None,
    data_option("--image-root", help="Folder that relative image paths start from."),
]
Watch = Annotated[
    bool, typer.Option("--watch", help="Follow the run in the dashboard (KORE_THEME, KORE_IMAGES).")
]


@with_settings(
    "model.id=--model",
    "train.method=--method -m",
    "adapter.rank",
    "adapter.budget",
    "adapter.keep=--keep-energy",
    "adapter.contrast",
    "adapter.solver",
    "train.lr",
    "train.epochs",
    "train.max_steps",
    "train.thaw_a",
    "train.keep",
    "train.seed",
    "train.constraint=--no-constraint",
)
def train(
    settings: dict[str, Any],
    data: Data = None,
    profile: options.ProfileName = "",
    covariance: CovarianceFolder = None,
    new_covariance: NewCovariance = None,
    old: Old = None,
    after: After = None,
    out: options.Out = None,
    probes: Probes = None,
    image_root: ImageRoot = None,
    watch: Watch = False,
    download: options.Download = False,
    restart: options.Restart = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train one adapter. The same command resumes a run that was stopped.

    Example: kore train --data samples.jsonl --covariance covariance/ -o runs/mine
    """
    import sys

    from kore.artifacts.run import locate
    from kore.data.read import check_records
    from kore.data.records import Sample
    from kore.distributed import launched
    from kore_cli.output import Output

    output = Output(json_mode=as_json, quiet=quiet or not launched().first)
    check_records(Sample, data, old)
    # torch is loaded once the samples are known to be sound
    from kore.api.train import train_request, train_requested

    command = [argument for argument in sys.argv[1:] if argument != "--watch"]
    if "adapter.contrast" in settings:
        settings.setdefault("adapter.basis", "contrast" if settings["adapter.contrast"] else "paper")
    after = locate(after) if after else None
    resolved = options.resolve(
        output, profile, settings, "adapter.rank", "train.lr", after=after, download=download
    )
    request = train_request(
        data,
        resolved,
        covariance=covariance,
        new_covariance=new_covariance,
        old=old,
        probes=probes,
        after=after,
        out=out,
        image_root=image_root,
        download=download,
        restart=restart,
        command=("kore", *command),
    )
    if dry_run:
        from kore.workflows.train_dry_run import dry_run_training

        value, lines = dry_run_training(request)
        output.result(value, "\n".join(lines))
        return
    if watch:
        raise typer.Exit(_watched(request, command))
    with output.steps(f"train {request.profile.train.method}") as progress:
        run = train_requested(request, progress=progress, on_note=output.note)
    if not launched().first:
        return
    output.result(
        {"run": str(run.folder), "method": run.method, **run.facts},
        f"adapter: {run.adapter}\nnext: kore chat {run.folder} --compare; kore eval {run.folder}",
    )


def _watched(request: TrainRequest, command: list[str]) -> int:
    """Train in a child under the dashboard.

    Naming a run folder after its content takes torch, which the dashboard's process is not to hold: once the
    folder is known, this process begins anew with it.
    """
    import os
    import sys

    from kore.workflows.train_run import run_folder
    from kore_cli.commands.dashboard import watch
    from kore_cli.dashboard.train_and_watch import need_terminal

    need_terminal()
    folder = run_folder(request)
    kore = [sys.executable, "-m", "kore_cli", *command]
    if request.out is None:
        os.execv(sys.executable, [*kore, "--watch", "--out", str(folder)])
    return watch([*kore, "--quiet"], folder)
