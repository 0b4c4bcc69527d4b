"""Training from Python: the run of `kore train`, with keywords for its options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.api.runs import RunResult, load_run
from kore.api.settings import resolved
from kore.config.resolve import Resolved
from kore.errors import UsageError
from kore.progress import Progress, silent
from kore.workflows.train_run import TrainRequest, run_training

if TYPE_CHECKING:  # train --watch follows a run in a process without torch
    from kore.nullspace.covariance import Covariance


def train(
    data: str | Path,
    *,
    covariance: Covariance | str | Path | None = None,
    output: str | Path | None = None,
    method: str | None = None,
    model: str | None = None,
    profile: str = "",
    settings: Mapping[str, Any] | None = None,
    new_covariance: Covariance | str | Path | None = None,
    old: str | Path | None = None,
    probes: str | Path | None = None,
    after: str | Path | None = None,
    image_root: str | Path | None = None,
    download: bool = False,
    restart: bool = False,
    progress: Progress = silent,
    on_note: Callable[[str], None] = lambda text: None,
) -> RunResult:
    """Train one adapter into a run folder; a repeated call resumes, and does nothing when it is finished.

    Args:
        data: samples (JSONL or a JSON list).
        covariance: of what the model is to keep.
        output: the run folder. Default: one under the runs folder, named by method and content.
        method: kore, lora, full, replay, ewc, lwf, moelora, olora, sefe or cia.
        model: kore-tiny, a folder, or a hub id. Default: the profile's, else kore-tiny.
        profile: a shipped profile's name, or a TOML file. Default: what suits the model.
        settings: settings by dotted key, e.g. ``{"train.lr": 1e-4, "adapter.rank": 64}``.
        new_covariance: of the new samples, for adapter.basis = contrast.
        old: retention samples, for methods that use them and for probes.
        probes: questions that are evaluated while it trains.
        after: an earlier run; train on the model that it left.
        image_root: the folder of relative image paths.
        download: allow fetching a hub id.
        restart: discard what is in `output`.
        on_note: called with each line that a person should read: the plan, warnings.

    Raises:
        KoreError: of the kind that says what is wrong: settings, data, a missing artefact.
    """
    request = train_request(
        data,
        resolved(profile, settings, _path(after), train__method=method, model__id=model),
        covariance=_folder(covariance),
        new_covariance=_folder(new_covariance),
        old=_path(old),
        probes=_path(probes),
        after=_path(after),
        out=_path(output),
        image_root=_path(image_root),
        download=download,
        restart=restart,
    )
    return train_requested(request, progress=progress, on_note=on_note)


def train_request(
    data: str | Path | None,
    resolved: Resolved,
    *,
    covariance: Path | None = None,
    new_covariance: Path | None = None,
    command: Sequence[str] = (),
    **options: Any,
) -> TrainRequest:
    """A checked request.

    Raises:
        UsageError: a setting that was given and has no effect beside the others; names both.
    """
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
    return TrainRequest(
        resolved,
        None if data is None else str(data),
        covariance,
        new_covariance,
        command=tuple(command),
        **options,
    )


def train_requested(
    request: TrainRequest, *, progress: Progress = silent, on_note: Callable[[str], None] = lambda text: None
) -> RunResult:
    """Train as requested, or resume."""
    return load_run(run_training(request, progress=progress, note=on_note)["run"])


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value)


def _folder(value: Covariance | str | Path | None) -> Path | None:
    return _path(value) if value is None or isinstance(value, (str, Path)) else value.folder
