"""The label-free retention suite: does the tuned model still answer old prompts as the base does?

For anyone who has no benchmark: held-out old prompts, the share of answers that are the same, and the
KL divergence of the next-token distributions along the base's own answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.data.records import IMAGE_MARK, Question, Sample, read_records
from kore.data.task import Task, TaskImage, UserTurn
from kore.errors import DataError
from kore.evaluation.metrics import f1
from kore.evaluation.text_normalize import vqa_normalise
from kore.evaluation.types import Answers, Outcome, Role, Scored, Verdict
from kore.io.files import hash_file
from kore.io.jsonl import read_jsonl

if TYPE_CHECKING:
    from torch import Tensor

    from kore.models.generate import Engine


@dataclass(frozen=True)
class AgreementSuite:
    """Held-out old prompts without answers."""

    name: str
    prompts: Sequence[Task]
    path: str
    data: str
    role: Role = "retention"

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
            said, wanted = (_first(a, task.id) for a in (answers, base))
            same = said is not None and wanted is not None and vqa_normalise(said) == vqa_normalise(wanted)
            overlap = f1(said, wanted) if said is not None and wanted is not None else 0.0
            parts: dict[str, Any] = {"f1": overlap, "images": [p.path for a in task.turns for p in a.images]}
            if task.id in divergence:
                parts["kl"] = divergence[task.id]
            outcome: Outcome = "missing" if said is None else "right" if same else "wrong"
            why = "no prediction" if said is None else "as the base" if same else "differs from the base"
            verdicts.append(Verdict(task.id, task.text, wanted or "", said, float(same), outcome, why, parts))
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
            self.name, "retention", metrics["agreement"], "answers as the base's", metrics, counts, verdicts,
            label_free=True,
        )  # fmt: skip


def load_agreement(path: Path, *, name: str = "agreement", limit: int | None = None) -> AgreementSuite:
    """Read held-out old prompts: samples in conversation form (their first human turn), or questions."""
    tasks = list(islice(_prompts(path), limit))
    if len({task.id for task in tasks}) < len(tasks):
        raise DataError("the same id twice", where=str(path))
    return AgreementSuite(name, tasks, str(path), hash_file(path))


def _prompts(path: Path) -> Iterator[Task]:
    if path.suffix == ".json":
        conversational = True
    else:
        first = next(iter(read_jsonl(path)), None)
        conversational = first is not None and not {"conversations", "messages"}.isdisjoint(first[1])
    if not conversational:
        for question in read_records(Question, path):
            pictures = tuple(map(TaskImage, question.images))
            marks = f"{IMAGE_MARK}\n" * (len(pictures) - question.text.count(IMAGE_MARK))
            yield Task(question.question_id, (UserTurn(marks + question.text, pictures),))
        return
    for sample in read_records(Sample, path):
        human = next(m for m in sample.conversations if m.from_ == "human")
        count = human.value.count(IMAGE_MARK)
        yield Task(sample.id, (UserTurn(human.value, tuple(map(TaskImage, sample.images[:count]))),))


def divergences(engine: Engine, suite: AgreementSuite, base: Answers) -> dict[str, float]:
    """Mean KL(base || tuned) per token, in nats, along the base's own answer to each prompt.

    One forward pass with the adapter off and one with it on, in the model's own precision; the
    distributions are compared in float32.
    """
    import torch

    from kore.adapters.lora import adapter_off
    from kore.models.processing import collate

    found: dict[str, float] = {}
    model, encoder = engine.backbone.model, engine.encoder
    tasks = [t for t in suite.tasks() if _first(base, t.id) is not None]
    for start in range(0, len(tasks), engine.batch):
        chosen = tasks[start : start + engine.batch]
        rows = [encoder.training(_sample(task, _first(base, task.id) or "")) for task in chosen]
        inputs = {k: engine._place(v) for k, v in collate(rows, encoder.pad_id, side="right").items()}
        labels = inputs.pop("labels")
        with torch.inference_mode():
            after = model(**inputs).logits
            with adapter_off(model):
                before = model(**inputs).logits
        for task, row in zip(chosen, _kl(before, after, labels), strict=True):
            found[task.id] = row
    return found


def _kl(before: Tensor, after: Tensor, labels: Tensor) -> list[float]:
    """(N, T, V) logits twice and (N, T) labels -> N mean divergences over the answer's tokens."""
    import torch

    rows = []
    for p, q, label in zip(before, after, labels, strict=True):
        chosen = (label[1:] != -100).nonzero().squeeze(-1)  # position t predicts token t + 1
        log_p = torch.log_softmax(p[chosen].float(), dim=-1)
        log_q = torch.log_softmax(q[chosen].float(), dim=-1)
        rows.append(float((log_p.exp() * (log_p - log_q)).sum(-1).mean()))
    return rows


def _sample(task: Task, answer: str) -> Sample:
    ask = task.turns[0]
    turns = [{"from": "human", "value": ask.text}, {"from": "gpt", "value": answer}]
    return Sample.model_validate(
        {"id": task.id, "image": [p.path for p in ask.images] or None, "conversations": turns}
    )


def _first(answers: Answers, name: str) -> str | None:
    turns = answers.get(name)
    return turns[0] if turns else None
