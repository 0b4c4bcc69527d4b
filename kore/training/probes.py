"""Probes: a few questions with known answers, asked of base and injected model while it trains."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kore.errors import DataError
from kore.io.jsonl import read_jsonl, write_jsonl
from kore.models.generate import Prompt

if TYPE_CHECKING:
    from kore.models.generate import Engine

Right = Callable[[str, str], bool]
"""Whether an answer (first) holds the known one (second)."""


@dataclass(frozen=True)
class Probe:
    """One question: kind ``new`` is of the injected knowledge, ``old`` of what must not be lost."""

    id: str
    kind: Literal["new", "old"]
    question: str
    answer: str
    image: str | None = None


def read_probes(path: Path) -> list[Probe]:
    """Read ``probes.jsonl``: id, kind, question, answer, image.

    Raises:
        DataError: a line without these, with ``file:line``.
    """
    found: list[Probe] = []
    for where, value in read_jsonl(path):
        kind = value.get("kind")
        if kind not in ("new", "old") or not value.get("question") or "answer" not in value:
            raise DataError("a probe has kind new or old, question, answer and perhaps image", where=where)
        image = value.get("image")
        if image and "://" not in image and not Path(image).is_absolute():
            image = str(path.resolve().parent / image)
        name = str(value.get("id", len(found)))
        found.append(Probe(name, kind, str(value["question"]), str(value["answer"]), image))
    return found


def write_probes(path: Path, probes: Sequence[Probe]) -> None:
    """Write ``probes.jsonl``."""
    write_jsonl(path, [probe.__dict__ for probe in probes])


@dataclass(frozen=True)
class Score:
    """Shares of right answers; None where there is no such probe."""

    new: float | None
    old: float | None

    @property
    def avg(self) -> float:
        """Mean of the two, of the one there is otherwise."""
        parts = [x for x in (self.new, self.old) if x is not None]
        return sum(parts) / len(parts) if parts else 0.0

    def values(self) -> dict[str, float]:
        """Without the missing one, with the mean."""
        known = {k: v for k, v in (("new", self.new), ("old", self.old)) if v is not None}
        return {**known, "avg": self.avg}


@dataclass
class Probing:
    """Asks probes in the course of a run.

    Args:
        probes: the questions.
        right: judges an answer.
        share: of the training time that asking may take.
        steps: ask every so many steps instead. Share 0 without steps asks none at all.
    """

    probes: Sequence[Probe]
    right: Right
    share: float = 0.02
    steps: int | None = None
    batch: int = 16
    max_new_tokens: int = 32
    base: list[str] = field(default_factory=list)
    base_score: Score = field(default_factory=lambda: Score(None, None))
    _cost: float = 0.0
    _last: int = 0

    @property
    def enabled(self) -> bool:
        """Whether any probe is asked."""
        return bool(self.share) or self.steps is not None

    def begin(self, engine: Engine) -> None:
        """Let the base answer, once."""
        start = time.monotonic()
        self.base = engine.answer(self._prompts(), adapter=False)
        self._cost = time.monotonic() - start
        self.base_score = self._score(self.base)

    def due(self, step: int, seconds_per_step: float) -> bool:
        """Whether it is time to ask again."""
        if self.steps is not None:
            return step % self.steps == 0
        if not self.enabled or not seconds_per_step:
            return False
        every = max(1, math.ceil(self._cost / (self.share * seconds_per_step)))
        return step - self._last >= every

    def ask(self, engine: Engine, step: int) -> tuple[list[dict[str, Any]], Score]:
        """The injected model's answers as ``probe`` events, and their score.

        ``loss`` is the injected model's on the known answer, in nats a token: training never used these
        wordings, so that of the new probes is the held-out loss.
        """
        start = time.monotonic()
        tuned = engine.answer(self._prompts()) if step else list(self.base)
        losses = engine.losses(self._prompts(), [p.answer for p in self.probes])
        if step:
            self._cost = time.monotonic() - start
        self._last = step
        events = [
            {
                "step": step,
                "id": p.id,
                "probe_kind": p.kind,
                "question": p.question,
                "image": p.image,
                "answer_known": p.answer,
                "base": base,
                "tuned": answer,
                "base_right": self.right(base, p.answer),
                "tuned_right": self.right(answer, p.answer),
                "loss": round(loss, 5),
            }
            for p, base, answer, loss in zip(self.probes, self.base, tuned, losses, strict=True)
        ]
        return events, self._score(tuned)

    def _prompts(self) -> list[Prompt]:
        return [Prompt.ask(p.question, [p.image] if p.image else []) for p in self.probes]

    def _score(self, answers: Sequence[str]) -> Score:
        def share(kind: str) -> float | None:
            marks = [
                self.right(a, p.answer) for a, p in zip(answers, self.probes, strict=True) if p.kind == kind
            ]
            return sum(marks) / len(marks) if marks else None

        return Score(share("new"), share("old"))
