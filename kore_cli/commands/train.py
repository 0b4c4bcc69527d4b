"""The kore train command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kore_cli import options

if TYPE_CHECKING:
    from kore.workflows.train_run import TrainRequest


def train(
    data: Annotated[
        str | None,
        typer.Option("--data", "-d", help="Samples: JSONL, a JSON list, or - for standard input."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option("--method", "-m", help="kore lora full replay ewc lwf moelora olora sefe cia."),
    ] = None,
    profile: options.ProfileName = "tiny",
    covariance: Annotated[
        Path | None, typer.Option("--covariance", "-c", help="Folder made by kore calibrate.")
    ] = None,
    new_covariance: Annotated[
        Path | None, typer.Option("--new-covariance", help="Of the new samples, for --contrast.")
    ] = None,
    old: Annotated[
        Path | None, typer.Option("--old", help="Old samples, for methods that use them and for probes.")
    ] = None,
    after: Annotated[
        Path | None,
        typer.Option("--after", help="An earlier run; train on the model that it left, and keep both."),
    ] = None,
    out: options.Out = None,
    model: options.Model = None,
    rank: Annotated[str | None, typer.Option("--rank", help="KORE's rank, or auto.")] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", help="Trainable parameters instead of a rank, e.g. 340M.")
    ] = None,
    keep_energy: Annotated[
        float | None,
        typer.Option("--keep-energy", help="Share of old-input energy to leave untouched, per layer: 0.95."),
    ] = None,
    contrast: Annotated[
        float | None,
        typer.Option("--contrast", help="Lean to directions that new samples use: 0 the paper's, 1 theirs."),
    ] = None,
    solver: Annotated[
        str | None, typer.Option("--solver", help="Eigen-solver: exact, fast or auto (by size and device).")
    ] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate of the adapter.")] = None,
    epochs: Annotated[float | None, typer.Option("--epochs", help="Passes over the data.")] = None,
    max_steps: Annotated[int | None, typer.Option("--max-steps", help="Stop after so many steps.")] = None,
    no_constraint: Annotated[
        bool,
        typer.Option("--no-constraint", help="Ablation: plain LoRA's random A instead of the null space."),
    ] = False,
    thaw_a: Annotated[bool, typer.Option("--thaw-a", help="Ablation: train A too.")] = False,
    probes: Annotated[Path | None, typer.Option("--probes", help="Questions to ask while training.")] = None,
    keep: Annotated[
        float | None,
        typer.Option("--keep", help="Alarm below this share of the base's old probes, e.g. 0.95."),
    ] = None,
    image_root: Annotated[
        Path | None, typer.Option("--image-root", help="Where relative picture paths start.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow the run in the dashboard (KORE_THEME, KORE_IMAGES).")
    ] = False,
    seed: options.Seed = None,
    setting: options.Set = None,
    download: options.Download = False,
    restart: options.Restart = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train one adapter; the same command goes on with a run that was stopped.

    Example: kore train --data samples.jsonl --covariance covariance/ -o runs/mine
    """
    import sys

    from kore.api.train import train_request, train_requested
    from kore.config.resolve import resolve
    from kore.workflows.launch import place
    from kore_cli.output import Output

    output = Output(json_mode=as_json, quiet=quiet)
    command = [argument for argument in sys.argv[1:] if argument != "--watch"]
    flags = {
        "train.method": method,
        "model.id": model,
        "adapter.rank": rank,
        "adapter.budget": budget,
        "adapter.keep": keep_energy,
        "adapter.basis": None if contrast is None else "contrast" if contrast else "paper",
        "adapter.contrast": contrast,
        "adapter.solver": solver,
        "train.lr": lr,
        "train.epochs": epochs,
        "train.max_steps": max_steps,
        "train.constraint": False if no_constraint else None,
        "train.thaw_a": True if thaw_a else None,
        "train.keep": keep,
        "train.seed": seed,
    }
    request = train_request(
        data,
        resolve(profile, options.given(setting, flags)),
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
    if not place().first:
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
