"""The suite ``loss:FILE``: rise of the per-token loss on old text, a label-free measure of forgetting.

The file holds samples in conversation form (the loss is over the assistant's tokens) or objects with a
``text`` (over all its tokens).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kore.data.forms import is_conversation
from kore.data.objects import first_object, hash_source, name_of, read_objects
from kore.data.read import read_located
from kore.data.records import Sample, encode
from kore.data.task import Task, TaskImage, UserTurn
from kore.errors import DataError
from kore.evaluation.types import Answers, Role, Scored, Verdict

NAME = "loss per token"


@dataclass(frozen=True)
class OldText:
    """One text: a sample, or plain text."""

    id: str
    content: Sample | str
    where: str

    @property
    def task(self) -> Task:
        """The text as a task, which identifies it among stored results."""
        if isinstance(self.content, str):
            return Task(self.id, (UserTurn(self.content),))
        images = tuple(TaskImage(path, where=self.where) for path in self.content.images)
        turns = self.content.model_copy(update={"id": self.id, "image": None})
        return Task(self.id, (UserTurn(encode(turns), images),))

    @property
    def text(self) -> str:
        """For people."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(message.value for message in self.content.conversations)


@dataclass(frozen=True)
class LossSuite:
    """Old text without questions."""

    name: str
    texts: Sequence[OldText]
    path: str
    data: str
    role: Role = field(default="retention", init=False)

    @property
    def facts(self) -> Mapping[str, Any]:
        """File, its hash, and what is measured."""
        return {"file": self.path, "data": self.data, "rows": len(self.texts), "metric": "loss"}

    def __len__(self) -> int:
        return len(self.texts)

    def tasks(self) -> Iterator[Task]:
        """The texts in file order."""
        return (text.task for text in self.texts)

    def score(self, answers: Answers) -> Scored:
        """The base against itself: no rise. Use `against` for a tuned model."""
        return self.against(answers, answers)

    def against(self, answers: Answers, base: Answers) -> Scored:
        """Compare a model's losses with the base's, over the texts that both were measured on.

        Args:
            answers: id -> one text written by `dump_loss`.
        """
        verdicts: list[Verdict] = []
        totals = [0.0, 0.0]
        tokens = 0
        for text in self.texts:
            parts: dict[str, Any] = {}
            why = "not measured"
            if text.id in answers and text.id in base:
                (own, count), (base_own, _) = (_load_loss(a[text.id][0]) for a in (answers, base))
                parts = {"loss": own, "base_loss": base_own, "rise": own - base_own, "tokens": count}
                why = f"loss {own:.4f}, base {base_own:.4f}"
                totals[0] += own * count
                totals[1] += base_own * count
                tokens += count
            verdicts.append(Verdict(text.id, text.text, "", None, None, "not scored", why, parts))
        measured = sum(bool(v.parts) for v in verdicts)
        counts = {"samples": len(verdicts), "missing": len(verdicts) - measured, "tokens": tokens}
        loss: float | None = None
        metrics: dict[str, float] = {}
        notes: tuple[str, ...] = ()
        if tokens:
            loss, base_loss = (total / tokens for total in totals)
            metrics = {"loss": loss, "base_loss": base_loss, "rise": loss - base_loss}
            if answers is not base:
                notes = (f"rise {loss - base_loss:+.4f} over the base's {base_loss:.4f}",)
        return Scored(
            self.name,
            "retention",
            loss,
            NAME,
            metrics,
            counts,
            verdicts,
            notes,
            unit="nats",
            label_free=True,
        )


def dump_loss(loss: float, tokens: int) -> str:
    """A text's mean loss in nats a token as it is stored among answers."""
    return json.dumps([loss, tokens])


def _load_loss(stored: str) -> tuple[float, int]:
    loss, tokens = json.loads(stored)
    return float(loss), int(tokens)


def load_losses(path: Path) -> LossSuite:
    """Read old text.

    Raises:
        DataError: with file and line: neither a sample nor a ``text``, an empty text, an id twice, no text.
    """
    texts: list[OldText] = []
    seen: set[str] = set()
    for where, text_id, content in _read(path):
        if text_id in seen:
            raise DataError(f"id {text_id} twice", where=where)
        seen.add(text_id)
        texts.append(OldText(text_id, content, where))
    if not texts:
        raise DataError("file is empty", where=str(path))
    return LossSuite(f"loss-{name_of(path)}", texts, str(path), hash_source(path))


def _read(path: Path) -> Iterator[tuple[str, str, Sample | str]]:
    if is_conversation(first_object(path)):
        for where, sample in read_located(Sample, path):
            if not any(m.from_ == "gpt" and m.value.strip() for m in sample.conversations):
                raise DataError("no assistant turn, so there is no loss to measure", where=where)
            yield where, sample.id, sample
        return
    for number, (where, value) in enumerate(read_objects(path), 1):
        text = value.get("text")
        if not isinstance(text, str) or {"question_id", "answer"} & value.keys():
            raise DataError(
                "neither a sample nor an object with a text",
                where=where,
                hint="questions are evaluated with --suite FILE.jsonl:retention",
            )
        if not text.strip():
            raise DataError("text: must not be empty", where=where)
        yield where, str(value.get("id", number)), text
