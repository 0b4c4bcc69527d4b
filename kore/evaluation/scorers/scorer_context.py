"""What every scorer gets and how it tells its result."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kore.data.benchmark_tsv import Row
from kore.evaluation.judge import JudgeRequest, Replies
from kore.evaluation.judge_prompts import JudgePrompts
from kore.evaluation.option_matching import Compat
from kore.evaluation.types import Scored, Verdict, outcome_of


@dataclass(frozen=True)
class ScorerContext:
    """A benchmark's rows with a model's predictions.

    Attributes:
        predictions: index -> the model's answers, one per turn; a row without one was not answered.
        judged: whether a judge is there; `replies` then holds what it said.
    """

    name: str
    rows: Sequence[Row]
    predictions: Mapping[str, Sequence[str]]
    dimension: str | None = None
    protocol: str = "vlmeval"
    compat: Compat = "vlmeval-688e9da"
    judged: bool = False
    replies: Replies = field(default_factory=Replies)
    prompts: JudgePrompts = field(default_factory=JudgePrompts)

    def prediction(self, row: Row) -> str | None:
        """The model's (first) answer to a row."""
        turns = self.predictions.get(row.index)
        return turns[0] if turns else None

    def verdict(self, row: Row, answer: str, score: float | None, why: str, **parts: Any) -> Verdict:
        """A row's verdict; a missing prediction scores 0."""
        said = self.prediction(row)
        if said is None:
            return Verdict(
                row.index, row.get("question"), answer, None, 0.0, "missing", "no prediction", parts
            )
        group = parts.pop("group", None)
        return Verdict(
            row.index, row.get("question"), answer, said, score, outcome_of(score), why, parts, group
        )

    def scored(
        self,
        headline: float | None,
        headline_name: str,
        metrics: Mapping[str, float],
        verdicts: Sequence[Verdict],
        *notes: str,
        **counts: int,
    ) -> Scored:
        """The result, with the counts that are always shown."""
        told = {
            "samples": len(verdicts),
            "missing": sum(v.prediction is None for v in verdicts),
            **({f"judge_{k}": v for k, v in self.replies.counts().items()} if self.judged else {}),
            **counts,
        }
        return Scored(
            self.name,
            "retention",
            headline,
            headline_name,
            metrics,
            told,
            verdicts,
            notes,
            dimension=self.dimension,
        )


Score = Callable[[ScorerContext], Scored]
Requests = Callable[[ScorerContext], list[JudgeRequest]]


def mean(values: Iterable[float | None]) -> float:
    """Mean, None counting 0; 0 for nothing."""
    numbers = [value or 0.0 for value in values]
    return sum(numbers) / len(numbers) if numbers else 0.0


def grouped(rows: Sequence[Row], values: Sequence[float], column: str) -> dict[str, list[float]]:
    """Values by a column's cell, in sorted order; rows without that cell left out."""
    found: dict[str, list[float]] = defaultdict(list)
    for row, value in zip(rows, values, strict=True):
        if column in row.cells:
            found[row.cells[column]].append(value)
    return dict(sorted(found.items()))
