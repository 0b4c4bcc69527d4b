"""A study's data: the same samples, questions, covariance and old samples for every trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.config.resolve import name_of, resolve
from kore.data.read import read_records
from kore.data.records import KnowledgeItem, Sample
from kore.errors import UsageError
from kore.progress import Progress
from kore.studies.method_study.plan import RAW, StudyPlan
from kore.workflows import stages

if TYPE_CHECKING:
    from kore.data.records import Question
    from kore.evaluation.types import Suite


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

    @property
    def questions(self) -> Path:
        """Of the new knowledge, made with the samples."""
        return self.tree / "eval.jsonl"

    def samples(self, label: str) -> Path:
        """What a row trains on."""
        return (self.raw if label == RAW else self.tree) / "samples.jsonl"

    def suites_of_old(self) -> dict[str, list[Sample]]:
        """The old samples by the suite that they name; empty where they name none."""
        found: dict[str, list[Sample]] = {}
        for sample in read_records(Sample, self.old):
            if "suite" in sample.extra:
                found.setdefault(str(sample.extra["suite"]), []).append(sample)
        return dict(sorted(found.items()))

    def without_suite(self) -> int:
        """How many old samples name none, where others do or not."""
        return sum("suite" not in sample.extra for sample in read_records(Sample, self.old))


def layout(plan: StudyPlan, out: Path, profile: str | None = None) -> StudyData:
    """Where a study's data lies, made or not: the same for every model, but for the covariance.

    Raises:
        UsageError: own items without old samples.
    """
    from kore.demo.archive import demo_data

    if plan.items and not plan.old:
        raise UsageError("a study of your own items needs old samples", hint="name them as old in the plan")
    items = Path(plan.items) if plan.items else demo_data() / "items.jsonl"
    old = Path(plan.old) if plan.old else demo_data() / "old.jsonl"
    own = out if profile in (None, plan.profile) else out / name_of(str(profile))
    return StudyData(items, out / "tree", out / "raw", old, own / "covariance")


def flags_of(plan: StudyPlan, data: StudyData) -> dict[str, Any]:
    """The plan's settings, with where pictures and old samples come from."""
    from kore.demo.archive import demo_data

    if plan.items:
        return {"calibrate.samples": [str(data.old)], **plan.settings}
    return {"augment.images": f"local:{demo_data() / 'images_more'}", **plan.settings}


def prepare(plan: StudyPlan, profile: str, data: StudyData, progress: Progress) -> None:
    """Augment the items, keep them raw beside it, and calibrate; a further model takes the main one's."""
    flags = flags_of(plan, data)
    if profile == plan.profile:
        _items(profile, flags, data, progress)
    stages.calibrate(resolve(profile, flags), data.covariance, progress)


def _items(profile: str, flags: dict[str, Any], data: StudyData, progress: Progress) -> None:
    known = list(read_records(KnowledgeItem, data.items))
    sources = {"items": str(data.items)}
    stages.augment(known, resolve(profile, flags).profile, data.tree, progress, sources=sources)
    raw = resolve(profile, {**flags, "augment.strategy": "none", "augment.copies": 1})
    stages.augment(known, raw.profile, data.raw, progress, sources=sources, stage="raw items")


def suites(plan: StudyPlan, data: StudyData, split: str) -> list[Suite]:
    """New knowledge first, then retention, of one split.

    Questions that do not say which split they belong to are divided by their ids, so that rates are never
    chosen on questions that results are told of.
    """
    from kore.evaluation.questions import QuestionSuite, half
    from kore.evaluation.suite_options import SuiteOptions
    from kore.evaluation.suites import narrow, resolve_suites

    choice = SuiteOptions(split=split, limit=plan.limit)
    found: list[Suite] = []
    for suite in resolve_suites([str(data.questions), *plan.suites], replace(choice, limit=None)):
        if not isinstance(suite, QuestionSuite):
            found.append(narrow(suite, choice))
            continue
        own = half(suite, split) if suite.split is None else suite
        found.append(replace(own, questions=_spread(own.questions, plan.limit)))
    return found


def _spread(questions: Sequence[Question], limit: int | None) -> list[Question]:
    """At most `limit` of them, from the whole file."""
    count = len(questions) if limit is None else min(limit, len(questions))
    return [questions[i * len(questions) // count] for i in range(count)]
