"""The types of an evaluation: answers, verdicts, suites and their results.

Standard library only: scoring never needs the model stack.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from kore.data.task import Task

Role = Literal["adaptation", "retention"]
Outcome = Literal["right", "partly", "wrong", "missing", "not scored"]


@dataclass(frozen=True)
class Verdict:
    """The result of one sample.

    Attributes:
        score: 0 to 1; None where it could not be scored.
        why: the rule that decided, in a few words.
        parts: further figures of this sample (f1, inferred letter, ...).
        group: id shared by samples that belong together (an item, a circular group).
    """

    id: str
    question: str
    answer: str
    prediction: str | None
    score: float | None
    outcome: Outcome
    why: str
    parts: Mapping[str, Any] = field(default_factory=dict)
    group: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain object for JSON lines."""
        return {**self.__dict__, "parts": dict(self.parts)}


@dataclass(frozen=True)
class Scored:
    """A suite's result.

    Attributes:
        headline: the figure of the tables, 0 to 100 in percent; None where not scored.
        headline_name: its name.
        metrics: every figure by name, in the unit of the benchmark's own report.
        counts: samples, missing, unparsed, failed, unmatched, ...
        notes: for the reader (not scored because ..., subset, tokenised by character).
        items: verdict per item (learned, partly, not), where the suite has items.
        near: of the new knowledge's own kind; reported apart from the other retention suites.
        label_free: measured against the base's own answers, not against gold answers.
        dimension: the capability it measures in the paper's table.
        unit: of the headline; only percentages enter K.A and K.R.
    """

    suite: str
    role: Role
    headline: float | None
    headline_name: str
    metrics: Mapping[str, float]
    counts: Mapping[str, int]
    samples: Sequence[Verdict]
    notes: tuple[str, ...] = ()
    items: Mapping[str, str] = field(default_factory=dict)
    near: bool = False
    label_free: bool = False
    dimension: str | None = None
    unit: Literal["percent", "nats"] = "percent"

    @property
    def judge_coverage(self) -> str | None:
        """How many of the judge's replies are readable; None if all are."""
        needed = self.counts.get("judge_asked", 0)
        failed, unread = self.counts.get("judge_failed", 0), self.counts.get("judge_unparsed", 0)
        if not failed and not unread:
            return None
        return f"judge read {needed - failed - unread} of {needed} ({failed} failed, {unread} unreadable)"

    @property
    def judge_failed(self) -> bool:
        """Whether a judge was needed and gave no reply at all."""
        needed = self.counts.get("judge_asked", 0)
        return bool(needed) and self.counts.get("judge_failed", 0) == needed

    def noted(self, *notes: str) -> Scored:
        """The same with more notes."""
        return replace(self, notes=(*self.notes, *notes))

    def summary(self) -> dict[str, Any]:
        """Everything but the samples, as a plain object."""
        value = {k: v for k, v in self.__dict__.items() if k != "samples"}
        for key in ("metrics", "counts", "items"):
            value[key] = dict(value[key])
        value["notes"] = list(self.notes)
        return value


Answers = Mapping[str, Sequence[str]]
"""Sample id -> the model's answers, one per turn; a sample without an entry was not answered."""


class Suite(Protocol):
    """A set of questions with its own scoring rule."""

    @property
    def name(self) -> str:
        """Its name in tables and file names."""

    @property
    def role(self) -> Role:
        """New knowledge (adaptation) or old (retention)."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What decides its result besides the model: data hash, rows, split, protocol, judge."""

    def tasks(self) -> Iterator[Task]:
        """The samples, in file order."""

    def __len__(self) -> int:
        """How many samples."""

    def score(self, answers: Answers) -> Scored:
        """Score a model's answers; pure except for a judge's recorded calls."""


def first_answer(answers: Answers, sample: str) -> str | None:
    """The answer to a sample's first turn."""
    turns = answers.get(sample)
    return turns[0] if turns else None


def outcome_of(score: float | None) -> Outcome:
    """The outcome of a score between 0 and 1."""
    if score is None:
        return "not scored"
    return "right" if score >= 1.0 else "wrong" if score <= 0.0 else "partly"
