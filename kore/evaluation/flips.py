"""Samples whose verdict differs between two models: forgotten and learned."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kore.evaluation.types import Verdict


@dataclass(frozen=True)
class Flip:
    """One sample that is scored higher (gained) or lower by the second model."""

    id: str
    question: str
    answer: str
    before: str | None
    after: str | None
    gained: bool
    why: str

    def to_json(self) -> dict[str, Any]:
        """A plain object."""
        return {**self.__dict__, "flip": "learned" if self.gained else "forgotten"}


def flips(first: Iterable[Verdict], second: Iterable[Verdict]) -> list[Flip]:
    """Samples scored for both models that changed between right and not right."""
    before = {v.id: v for v in first}
    flipped = []
    for after in second:
        old = before.get(after.id)
        if old is None or old.score is None or after.score is None:
            continue
        was, now = old.score >= 1.0, after.score >= 1.0
        if was != now:
            flipped.append(
                Flip(after.id, after.question, after.answer, old.prediction, after.prediction, now, after.why)
            )
    return flipped
