"""The stages as the pipelines call them: each takes files, says where it is, and returns files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kore.artifacts.run import Run
from kore.distributed import join
from kore.progress import Progress, renamed

if TYPE_CHECKING:
    from kore.artifacts.events import EventWriter
    from kore.augment import Report
    from kore.augment.fit import Budget
    from kore.config.resolve import Profile, Resolved
    from kore.data.records import KnowledgeItem
    from kore.evaluation.runner import Result
    from kore.evaluation.types import Suite
    from kore.nullspace.covariance import Covariance

BASE = "base"


def augment(
    items: Sequence[KnowledgeItem],
    profile: Profile,
    out: Path,
    progress: Progress,
    *,
    seed: int = 0,
    restart: bool = False,
    stage: str = "augment",
    sources: dict[str, str] | None = None,
    budget: Budget | None = None,
    places: Mapping[str, str] | None = None,
) -> Report:
    """Items to trees, samples and questions in `out`.

    Args:
        budget: what the model can hold; longer samples are split. places: item id -> ``file:line``.
    """
    from kore.augment import grow

    tell = renamed(progress, stage)

    report = grow(
        items,
        profile.augment,
        out,
        seed=seed,
        restart=restart,
        progress=tell,
        sources=sources,
        budget=budget,
        places=places,
    )
    counts = report.values["statistics"]
    text = f"{counts['items']} items, {counts['samples']} samples"
    if report.fit and (fitted := report.fit.summary()):
        text += f"; {fitted}"
    progress(stage, len(items), len(items), text)
    return report


def calibrate(
    resolved: Resolved,
    out: Path,
    progress: Progress,
    *,
    new: Path | None = None,
    restart: bool = False,
    stage: str = "calibrate",
    adapter: Path | None = None,
) -> Covariance:
    """The covariance of what the model already knows, in `out`; with the adapter of a run in place.

    Args:
        new: samples to learn, for layers that auto chooses.
    """
    from kore.workflows.calibrate_run import CalibrateJob
    from kore.workflows.sequential import read_earlier

    name = stage

    def report(stage: str, done: int, total: int | None = None, note: str = "") -> None:
        progress(name, done, (total or 0) + 1)  # the spectra follow

    progress(stage, 0)
    notes: list[str] = []
    earlier = read_earlier(adapter) if adapter else None
    with (
        join(),
        closing(CalibrateJob(resolved.profile, out, earlier=earlier, new=new, on_note=notes.append)) as job,
    ):
        covariance = job.run(restart=restart, progress=report)
    layers = resolved.profile.calibrate.layers
    more = f" (and {len(notes) - 1} more)" if len(notes) > 1 else ""
    told = f"; {notes[0]}{more}" if notes else ""
    progress(stage, 1, 1, f"{covariance.label} samples, layers {layers}{told}")
    return covariance


def calibrate_new(
    resolved: Resolved,
    data: Path,
    out: Path,
    progress: Progress,
    *,
    restart: bool = False,
    adapter: Path | None = None,
) -> Covariance:
    """The covariance of the samples to learn, answers and all, in `out`: for the contrast basis."""
    section = resolved.profile.calibrate
    changes = {"samples": [str(data)], "with_answers": True, "layers": "all", "held_out": 0}
    profile = resolved.profile.model_copy(update={"calibrate": section.model_copy(update=changes)})
    named = replace(resolved, profile=profile)
    return calibrate(named, out, progress, restart=restart, stage="calibrate new", adapter=adapter)


def train(
    resolved: Resolved,
    data: Path,
    out: Path,
    progress: Progress,
    *,
    covariance: Path | None = None,
    new_covariance: Path | None = None,
    old: Path | None = None,
    probes: Path | None = None,
    after: Path | None = None,
    restart: bool = False,
    stage: str = "train",
    command: Sequence[str] = (),
) -> Run:
    """One adapter, in the run folder `out`; on the model that the run `after` left."""
    from kore.workflows.train_run import TrainRequest, run_training

    tell = renamed(progress, stage)

    request = TrainRequest(
        resolved=resolved,
        data=str(data),
        covariance=covariance,
        new_covariance=new_covariance,
        old=old,
        probes=probes,
        after=after,
        out=out,
        restart=restart,
        command=tuple(command),
    )
    value = run_training(request, progress=tell)
    progress(stage, value["steps"], value["steps"], f"loss {value['loss']:.3f}")
    return Run(out)


def evaluate(
    resolved: Resolved,
    run: Run | None,
    suites: Sequence[Suite],
    out: Path,
    label: str,
    progress: Progress,
    *,
    stage: str | None = None,
    events: EventWriter | None = None,
) -> Result:
    """Answers and scores of a run's adapter, or of the untouched base (no run), in `out`.

    Args:
        events: told how far each suite is.
    """
    from kore.evaluation.runner import evaluate as score
    from kore.methods.load_adapter import load_adapter
    from kore.models.generate import Engine
    from kore.models.load import load

    profile = resolved.profile
    name = stage or f"evaluate {label}"
    progress(name, 0)
    backbone = load(profile.model)
    if run is not None:
        load_adapter(backbone, run.adapter)
    engine = Engine(backbone, batch=profile.eval.batch, max_new_tokens=profile.eval.max_new_tokens)
    everything = sum(len(suite) for suite in suites)
    before: dict[str, int] = {}

    def report(stage: str, done: int, total: int | None = None, note: str = "") -> None:
        if events:
            events.write("eval", suite=stage, label=label, done=done, total=total)
        before[stage] = done
        progress(name, sum(before.values()), everything + 1, stage)

    result = score(engine, suites, out, label=label, adapter=run is not None, progress=report)
    progress(name, everything + 1, everything + 1)
    return result
