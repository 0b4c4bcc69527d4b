"""What flows between the stages: KnowledgeItem, KnowledgeTree, Sample, Question.

Records are pydantic models, frozen; unknown keys are kept under ``extra``. Knows nothing of models.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import (
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from kore.data.forms import IMAGE_MARK as IMAGE_MARK
from kore.data.forms import read_conversation, with_images
from kore.data.record_base import Record as Record
from kore.data.record_base import as_list, as_text


class KnowledgeItem(Record):
    """One piece of new knowledge: a text with its picture(s) (paper, 4.2.1)."""

    id: str
    kind: Literal["news", "entity"]
    type: str
    title: str
    text: str
    image: str | list[str] | None = None
    date: str | None = None
    source: str | None = None
    facts: dict[str, str | list[str]] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _read_forms(cls, value: Any) -> Any:
        return with_images(value, web=True) if isinstance(value, dict) else value

    @field_validator("id", mode="before")
    @classmethod
    def _id_as_text(cls, value: Any) -> Any:
        return as_text(value)

    @field_validator("facts", mode="before")
    @classmethod
    def _facts_as_text(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {k: as_text(v) for k, v in value.items() if v is not None}

    @field_validator("id", "title", "type")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must not be empty")
        return value

    @property
    def images(self) -> list[str]:
        """The pictures as a list, whatever form they were given in."""
        return as_list(self.image)


class Origin(Record):
    """Who made a text, from which prompt, and whether the item supports it."""

    by: str
    prompt: str | None = None
    verdict: Literal["grounded", "ungrounded", "unchecked"] = "unchecked"
    reasons: list[str] = Field(default_factory=list)


class Turn(Record):
    """One question and answer of the trunk."""

    question: str
    answer: str
    origin: Literal["heuristic", "dialogue"]
    made: Origin | None = None
    evidence: str | None = None


class Branch(Record):
    """One instruction task on another picture: recognition, caption, vqa or (forest) multi-hop."""

    task: Literal["recognition", "caption", "vqa", "hop"]
    question: str
    answer: str
    image: str | None = None
    subject: str | None = None
    hypernym: str | None = None
    key: str | None = None
    made: Origin | None = None
    evidence: str | None = None


class KnowledgeTree(Record):
    """An item grown into a dialogue (trunk) and instruction tasks (branches)."""

    item: KnowledgeItem
    trunk: list[Turn]
    branches: list[Branch] = Field(default_factory=list)


class Message(Record):
    """One turn of a conversation in LLaVA's form."""

    from_: Literal["human", "gpt", "system"] = Field(alias="from")
    value: str
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _keep_unknown(cls, value: Any) -> Any:
        if isinstance(value, dict) and not value.keys() <= {"from", "from_", "value", "extra"}:
            extra = {k: v for k, v in value.items() if k not in ("from", "from_", "value")}
            return {
                "from": value.get("from", value.get("from_")),
                "value": value.get("value"),
                "extra": extra,
            }
        return value


class Sample(Record):
    """A training or calibration sample: LLaVA conversation form, which every trainer reads."""

    id: str
    image: str | list[str] | None = None
    conversations: list[Message]

    @model_validator(mode="before")
    @classmethod
    def _read_forms(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        value = read_conversation(value)
        return {**value, "id": as_text(value["id"])} if "id" in value else value

    @model_validator(mode="after")
    def _check_turns(self) -> Self:
        spoken = [m for m in self.conversations if m.from_ != "system"]
        if not spoken or spoken[0].from_ != "human":
            raise ValueError("a conversation starts with a human turn")
        if any(a.from_ == b.from_ for a, b in pairwise(spoken)):
            raise ValueError("human and gpt turns must alternate")
        marks = sum(m.value.count(IMAGE_MARK) for m in self.conversations)
        if marks != len(self.images):
            raise ValueError(f"{marks} {IMAGE_MARK} marks in the text for {len(self.images)} images")
        return self

    @property
    def images(self) -> list[str]:
        """The pictures as a list, in the order of their marks."""
        return as_list(self.image)


class Question(Record):
    """An evaluation question in EVOKE's form. ``cnn_wiki_type`` is EVOKE's news/wiki split."""

    question_id: str
    image: str | list[str] | None = None
    text: str
    answer: str | list[str]
    type: str = "other"
    cnn_wiki_type: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_forms(cls, value: Any) -> Any:
        return with_images(value) if isinstance(value, dict) else value

    @field_validator("question_id", "answer", mode="before")
    @classmethod
    def _id_as_text(cls, value: Any) -> Any:
        return as_text(value)

    @model_validator(mode="after")
    def _check_marks(self) -> Self:
        marks = self.text.count(IMAGE_MARK)
        if marks > len(self.images):
            raise ValueError(f"text: {marks} {IMAGE_MARK} marks, more than images ({len(self.images)})")
        return self

    @property
    def images(self) -> list[str]:
        """The images as a list."""
        return as_list(self.image)

    @property
    def answers(self) -> list[str]:
        """All accepted answers."""
        return as_list(self.answer)


R = TypeVar("R", bound=Record)


def _is_file(image: str) -> bool:
    """Whether an image is given as a path, not as an address."""
    return "://" not in image


def anchored(record: R, root: Path) -> R:
    """The record with absolute image paths; relative ones start from `root`."""

    def anchor(path: str) -> str:
        return str(root / path) if _is_file(path) else path

    if isinstance(record, KnowledgeTree):
        branches = [
            b.model_copy(update={"image": anchor(b.image)}) if b.image else b for b in record.branches
        ]
        return record.model_copy(update={"item": anchored(record.item, root), "branches": branches})
    image = getattr(record, "image", None)
    if not image:
        return record
    absolute = anchor(image) if isinstance(image, str) else [anchor(p) for p in image]
    return record.model_copy(update={"image": absolute})


def relative_to(record: R, root: Path) -> R:
    """The record as it is written to a file in `root`: image paths below `root` relative to it, all others
    absolute. Every writer of records goes through here; a relative path in memory starts from the working
    folder."""

    def shorten(path: str) -> str:
        if not _is_file(path):
            return path
        place = Path(path).absolute()
        above = next((r for r in (root.absolute(), root.resolve()) if place.is_relative_to(r)), None)
        return str(place.relative_to(above) if above else place)

    if isinstance(record, KnowledgeTree):
        branches = [
            b.model_copy(update={"image": shorten(b.image)}) if b.image else b for b in record.branches
        ]
        return record.model_copy(update={"item": relative_to(record.item, root), "branches": branches})
    image = getattr(record, "image", None)
    if not image:
        return record
    short = shorten(image) if isinstance(image, str) else [shorten(p) for p in image]
    return record.model_copy(update={"image": short})


def encode(record: Record) -> str:
    """The record as one compact JSON text, for hashing."""
    return json.dumps(record.to_json(), sort_keys=True, ensure_ascii=False)
