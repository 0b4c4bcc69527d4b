"""A study's data: the same samples, questions, covariance and old samples for every trial."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kore.errors import UsageError
from kore.pipeline import stages
from kore.pipeline.study_plan import StudyPlan
from kore.profile import resolve
from kore.progress import Progress
from kore.records import KnowledgeItem, read_records

if TYPE_CHECKING:
    from kore.evaluate.task import Suite


@dataclass(frozen=True)
class StudyData:
    """What all trials of one profile share.

    Attributes:
        tree, raw: augmented and raw items. old: retention samples.
    """

    items: Path
    tree: Path
    raw: Path
    old: Path
    covariance: Path

    def samples(self, label: str) -> Path:
        """What a row trains on."""
        return (self.raw if label == "lora-raw" else self.tree) / "samples.jsonl"


def prepare(plan: StudyPlan, profile: str, out: Path, progress: Progress) -> StudyData:
    """Augment the items, keep them raw beside it, and calibrate.

    Raises:
        UsageError: own items without old samples.
    """
    from kore.pipeline.demo import package_data

    if plan.items and not plan.old:
        raise UsageError("a study of your own items needs old samples", hint="name them as old in the plan")
    items = Path(plan.items) if plan.items else package_data() / "items.jsonl"
    old = Path(plan.old) if plan.old else package_data() / "old.jsonl"
    flags = dict(plan.settings)
    if not plan.items:
        flags["augment.images"] = f"local:{package_data() / 'images_more'}"
    else:
        flags["calibrate.samples"] = [str(old)]
    resolved = resolve(profile, flags)
    known = list(read_records(KnowledgeItem, items))
    sources = {"items": str(items)}
    stages.augment(known, resolved.profile, out / "tree", progress, sources=sources)
    raw = resolve(profile, {**flags, "augment.strategy": "none", "augment.copies": 1})
    stages.augment(known, raw.profile, out / "raw", progress, sources=sources, stage="raw items")
    stages.calibrate(resolved, out / "covariance", progress)
    return StudyData(items, out / "tree", out / "raw", old, out / "covariance")


def suites(plan: StudyPlan, data: StudyData, split: str) -> list[Suite]:
    """New knowledge first, then retention, of one split."""
    from kore.evaluate.suites import Choice, resolve_suites

    choice = Choice(split=split, limit=plan.limit)
    found: list[Suite] = resolve_suites([str(data.tree / "eval.jsonl"), *plan.suites], choice)
    return found
