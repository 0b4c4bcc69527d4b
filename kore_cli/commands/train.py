"""The kore train command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kore_cli import options
from kore_cli.options import data_option
from kore_cli.schema_options import with_settings

if TYPE_CHECKING:
    from kore.config.resolve import Resolved
    from kore.workflows.train_run import TrainRequest


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
    data: Annotated[
        str | None,
        data_option("--data", "-d", help="Samples: JSONL, a JSON list, or - for stdin."),
    ] = None,
    profile: options.ProfileName = "",
    covariance: Annotated[
        Path | None,
        data_option("--covariance", "-c", help="Folder written by kore calibrate."),
    ] = None,
    new_covariance: Annotated[
        Path | None,
        data_option("--new-covariance", help="Covariance of the new samples, for --contrast."),
    ] = None,
    old: Annotated[
        Path | None,
        data_option("--old", help="Old samples, for methods that train on them and for probes."),
    ] = None,
    after: Annotated[
        Path | None,
        data_option(
            "--after", help="Earlier run (folder or name): continue on its model and keep its knowledge."
        ),
    ] = None,
    out: options.Out = None,
    probes: Annotated[
        Path | None,
        data_option("--probes", help="Questions to evaluate while training (JSONL)."),
    ] = None,
    image_root: Annotated[
        Path | None,
        data_option("--image-root", help="Folder that relative image paths start from."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow the run in the dashboard (KORE_THEME, KORE_IMAGES).")
    ] = False,
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
    from kore.distributed import launched
    from kore.workflows.train_run import TrainRequest, run_training
    from kore_cli.output import Output

    output = Output(json_mode=as_json, quiet=quiet or not launched().first)
    command = [argument for argument in sys.argv[1:] if argument != "--watch"]
    if "adapter.contrast" in settings:
        settings.setdefault("adapter.basis", "contrast" if settings["adapter.contrast"] else "paper")
    after = locate(after) if after else None
    resolved = options.resolve(
        output, profile, settings, "adapter.rank", "train.lr", after=after, download=download
    )
    _refuse_idle(resolved, new_covariance)
    request = TrainRequest(
        resolved=resolved,
        data=data,
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
        result = run_training(
            request,
            progress=lambda _, done, total=None, note="": progress(done, total, note),
            note=output.note,
        )
    if not launched().first:
        return
    output.result(
        result,
        f"adapter: {result['adapter']}\nnext: kore chat {result['run']} --compare; kore eval {result['run']}",
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


def _refuse_idle(resolved: Resolved, new_covariance: Path | None) -> None:
    """Refuse options of the command line that the other settings leave without any effect.

    Raises:
        UsageError: names the option and what it needs.
    """
    from kore.errors import UsageError

    adapter = resolved.profile.adapter
    if resolved.origin["adapter.rank"] == "flag" and adapter.rank != "auto":
        for name, option in (("keep", "--keep-energy"), ("budget", "--budget")):
            if getattr(adapter, name) is not None:
                raise UsageError(
                    f"--rank {adapter.rank} has no effect beside {option}, which chooses the rank",
                    hint=f"leave one of them out, or --set adapter.{name}=none",
                )
    if new_covariance is not None and adapter.basis != "contrast":
        raise UsageError(
            "--new-covariance has no effect on the paper's basis", hint="add --contrast S, for example 0.5"
        )
