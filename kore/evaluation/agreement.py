"""The label-free retention suite: does the tuned model still answer old prompts as the base does?

For users without a benchmark: held-out old prompts, the share of equal answers, and the KL divergence of the
next-token distributions along the base's own answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from kore.data.forms import is_conversation
from kore.data.objects import first_object, hash_source
from kore.data.read import read_records
from kore.data.records import IMAGE_MARK, Question, Sample
from kore.data.task import Task, TaskImage, UserTurn
from kore.errors import DataError
from kore.evaluation.metrics import f1
from kore.evaluation.text_normalize import vqa_normalise
from kore.evaluation.types import Answers, Outcome, Role, Scored, Verdict, first_answer


@dataclass(frozen=True)
class AgreementSuite:
    """Held-out old prompts without answers."""

    name: str
    prompts: Sequence[Task]
    path: str
    data: str
    role: Role = "retention"
    near: bool = False

    @property
    def facts(self) -> Mapping[str, Any]:
        """File, its hash, and what is measured."""
        return {"file": self.path, "data": self.data, "rows": len(self.prompts), "metric": "agreement"}

    def __len__(self) -> int:
        return len(self.prompts)

    def tasks(self) -> Iterator[Task]:
        """The prompts in file order."""
        return iter(self.prompts)

    def score(self, answers: Answers) -> Scored:
        """The base against itself: full agreement by definition. Use `against` for a tuned model."""
        return self.against(answers, answers, {})

    def against(self, answers: Answers, base: Answers, divergence: Mapping[str, float]) -> Scored:
        """Score a model's answers against the base's.

        Args:
            divergence: sample id -> mean KL(base || model) per token in nats, where it was measured.
        """
        verdicts = []
        for task in self.prompts:
            answer, expected = (first_answer(a, task.id) for a in (answers, base))
            same, overlap = False, 0.0
            if answer is not None and expected is not None:
                same = vqa_normalise(answer) == vqa_normalise(expected)
                overlap = f1(answer, expected)
            parts: dict[str, Any] = {"f1": overlap, "images": [i.path for t in task.turns for i in t.images]}
            if task.id in divergence:
                parts["kl"] = divergence[task.id]
            outcome: Outcome = "missing" if answer is None else "right" if same else "wrong"
            why = "no prediction" if answer is None else "as the base" if same else "differs from the base"
            verdict = Verdict(task.id, task.text, expected or "", answer, float(same), outcome, why, parts)
            verdicts.append(verdict)
        count = len(verdicts)
        metrics = {
            "agreement": 100 * sum(v.score or 0.0 for v in verdicts) / count,
            "f1": 100 * sum(v.parts["f1"] for v in verdicts) / count,
        }
        if divergence:
            metrics["kl"] = sum(divergence.values()) / len(divergence)
        elif answers is base:
            metrics["kl"] = 0.0
        counts = {
            "samples": count,
            "missing": sum(v.prediction is None for v in verdicts),
            "kl": len(divergence),
        }
        return Scored(
            self.name,
            "retention",
            metrics["agreement"],
            "answers as the base's",
            metrics,
            counts,
            verdicts,
            label_free=True,
            near=self.near,
        )


def load_agreement(
    path: Path, *, name: str = "agreement", limit: int | None = None, near: bool = False
) -> AgreementSuite:
    """Read held-out old prompts: samples in conversation form (their first human turn), or questions.

    Args:
        near: they are of the new knowledge's own kind.
    """
    tasks = list(islice(_prompts(path), limit))
    if len({task.id for task in tasks}) < len(tasks):
        raise DataError("an id occurs twice", where=str(path))
    return AgreementSuite(name, tasks, str(path), hash_source(path), near=near)


def _prompts(path: Path) -> Iterator[Task]:
    if not is_conversation(first_object(path)):
        for question in read_records(Question, path):
            images = tuple(map(TaskImage, question.images))
            marks = f"{IMAGE_MARK}\n" * (len(images) - question.text.count(IMAGE_MARK))
            yield Task(question.question_id, (UserTurn(marks + question.text, images),))
        return
    for sample in read_records(Sample, path):
        human = next(m for m in sample.conversations if m.from_ == "human")
        count = human.value.count(IMAGE_MARK)
        yield Task(sample.id, (UserTurn(human.value, tuple(map(TaskImage, sample.images[:count]))),))
