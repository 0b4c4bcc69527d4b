"""kore inject: items of anyone's own, through every stage, into one run folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.errors import DataError
from kore.files import hash_json
from kore.jsonl import STDIO, write_jsonl
from kore.pipeline import stages
from kore.pipeline.answers import side_by_side
from kore.pipeline.outcome import Outcome
from kore.progress import Progress, silent
from kore.run import home

if TYPE_CHECKING:
    from kore.evaluate.task import Suite
    from kore.profile import Resolved
    from kore.records import KnowledgeItem

HELD_OUT = 120  # old prompts for the agreement with the base


@dataclass(frozen=True)
class Request:
    """The options of ``kore inject``.

    Attributes:
        items: KnowledgeItem records, or ``-``.
        suites: retention suites besides the items' own questions; without any, agreement with the
            untouched base on held-out old prompts stands in for them.
    """

    items: str
    resolved: Resolved
    out: Path | None = None
    suites: tuple[str, ...] = ()
    data_dir: Path | None = None
    image_root: Path | None = None
    restart: bool = False


@dataclass(frozen=True)
class Plan:
    """What was read and checked before anything runs.

    Attributes:
        notes: what the model will probably not understand of the items.
    """

    request: Request
    items: list[KnowledgeItem]
    folder: Path
    model: Path
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """What ``--dry-run`` prints."""
        profile = self.request.resolved.profile
        return {
            "v": 1,
            "items": len(self.items),
            "folder": str(self.folder),
            "model": str(self.model),
            "method": profile.train.method,
            "teacher": profile.augment.teacher,
            "samples": list(profile.calibrate.samples),
            "rank": profile.adapter.rank,
            "batch": profile.train.batch,
            "notes": self.notes,
        }


def plan(request: Request) -> Plan:
    """Read the items, find the model, and say what will not be understood.

    Raises:
        DataError: a bad record or picture, with its place. MissingArtefact: the model is not here.
    """
    from kore.models.conversation import open_image
    from kore.models.load import EMBEDDED, model_folder
    from kore.records import KnowledgeItem, read_records

    items = list(read_records(KnowledgeItem, request.items, image_root=request.image_root))
    for item in items:
        if not item.images:
            raise DataError("an item needs a picture", where=f"item {item.id}", hint='add "image": "FILE"')
        for image in item.images:
            if "://" not in image:
                open_image(image, where=f"item {item.id}")
    model = model_folder(request.resolved.profile.model.id)
    stem = "stdin" if request.items == STDIO else Path(request.items).stem
    name = f"{stem}-{hash_json([item.to_json() for item in items])[:8]}"
    notes = []
    if request.resolved.profile.model.id == EMBEDDED:
        from kore.demo.reach import beyond

        notes = beyond(items, model)
    return Plan(request, items, request.out or home() / name, model, notes)


def run_inject(planned: Plan, progress: Progress = silent) -> Outcome:
    """All stages, each resumed or skipped where its output is there already."""
    from kore.evaluate.scores import table

    request, resolved, folder = planned.request, planned.request.resolved, planned.folder
    profile, seed = resolved.profile, resolved.profile.train.seed
    clock = time.monotonic()
    seconds: dict[str, float] = {}

    def lap(name: str) -> None:
        nonlocal clock
        seconds[name] = round(time.monotonic() - clock, 1)
        clock = time.monotonic()

    restart = request.restart
    tree = folder / "tree"
    sources = {"items": request.items}
    stages.augment(planned.items, profile, tree, progress, seed=seed, restart=restart, sources=sources)
    lap("augment")
    covariance = None
    if profile.train.method == "kore" and profile.train.constraint:
        covariance = folder / "covariance"
        stages.calibrate(resolved, covariance, progress, restart=restart)
        lap("calibrate")
    run = stages.train(
        resolved,
        tree / "samples.jsonl",
        folder / "run",
        progress,
        covariance=covariance,
        restart=restart,
        command=("kore", "inject", request.items, "-o", str(folder)),
    )
    lap("train")
    suites = suites_for(request, tree)
    evals = folder / "eval"
    base = stages.evaluate(resolved, None, suites, evals, stages.BASE, progress)
    label = profile.train.method
    tuned = stages.evaluate(resolved, run, suites, evals, label, progress)
    lap("evaluate")
    rows = table(base.scored, {label: tuned.scored})
    rows[1]["params"] = run.state().result.get("trainable")
    verdicts = list(tuned.scored[suites[0].name].items.values())
    counts = {verdict: verdicts.count(verdict) for verdict in ("learned", "partly", "not")}
    return Outcome(
        folder=folder,
        table=rows,
        legend=legend(suites, counts),
        answers=side_by_side(suites, {"base": base, label: tuned}, ("base", label)),
        items=counts,
        next=[
            f"kore chat {run.folder} --compare",
            f"kore dashboard {run.folder}",
            f"kore export {run.folder} --to peft -o {folder / 'peft'}",
        ],
        seconds=seconds,
    )


def suites_for(request: Request, tree: Path) -> list[Suite]:
    """The items' own questions, then the named suites, else agreement with the base on old prompts."""
    from kore.evaluate.agreement import load_agreement
    from kore.evaluate.questions import load_questions
    from kore.evaluate.suites import Choice, resolve_suites

    own: list[Suite] = [load_questions(tree / "eval.jsonl", name="items")]
    if request.suites:
        return own + resolve_suites(request.suites, Choice(data=request.data_dir))
    return [*own, load_agreement(held_out(request, tree.parent), limit=HELD_OUT)]


def held_out(request: Request, folder: Path) -> Path:
    """Old samples that are not in the covariance, drawn once from the same sources."""
    from kore.nullspace.sources import collect, collect_others, parse_source
    from kore.records import relative_to

    path = folder / "held_out.jsonl"
    if not path.exists():
        section = request.resolved.profile.calibrate
        sources = [parse_source(text, section.count) for text in section.samples]
        used = collect(sources, section.seed, folder / "held_out", onevision=section.onevision)
        drawn = collect_others(
            sources, section.seed, folder / "held_out", used, HELD_OUT, onevision=section.onevision
        )
        write_jsonl(path, [relative_to(s, folder).to_json() for s in drawn or used])
    return path


def legend(suites: Sequence[Suite], counts: dict[str, int]) -> str:
    """What the table's columns are over, and how the items fared."""
    old = ", ".join(s.name for s in suites[1:])
    fared = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    return (
        f"K.A: your items, in wordings that training never used ({fared}). K.R: {old}"
        " (agreement: the same answers as the untouched base on old prompts)."
    )
