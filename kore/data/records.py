"""What flows between the stages: KnowledgeItem, KnowledgeTree, Sample, Question.

Records are pydantic models, frozen; unknown keys are kept under ``extra``. Knows nothing of models.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from kore.data.record_base import Record as Record
from kore.data.record_base import as_list, as_text
from kore.errors import DataError, Faults
from kore.io.files import read_json
from kore.io.jsonl import STDIO, read_jsonl

IMAGE_MARK = "<image>"


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

    @field_validator("id", mode="before")
    @classmethod
    def _idas_text(cls, value: Any) -> Any:
        return as_text(value)

    @field_validator("facts", mode="before")
    @classmethod
    def _factsas_text(cls, value: Any) -> Any:
        return {k: as_text(v) for k, v in value.items()} if isinstance(value, dict) else value

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

    _ROLES: ClassVar[dict[str, str]] = {"user": "human", "assistant": "gpt", "system": "system"}

    @model_validator(mode="before")
    @classmethod
    def _read_forms(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        value = dict(value)
        if "messages" in value and "conversations" not in value:
            messages = value.pop("messages")
            if not isinstance(messages, list):
                raise ValueError("messages must be a list")
            pictures: list[Any] = []
            value["conversations"] = [cls._from_message(m, pictures) for m in messages]
            if "image" not in value:
                value["image"] = value.pop("images", None) or pictures or None
        if "id" in value:
            value["id"] = as_text(value["id"])
        return value

    @classmethod
    def _from_message(cls, message: Any, pictures: list[Any]) -> Any:
        """A message of OpenAI's form as a turn; what it shows is added to `pictures`."""
        if not isinstance(message, dict):
            return message
        content = message.get("content", "")
        if isinstance(content, list):
            content = "\n".join(cls._from_part(part, pictures) for part in content)
        return {"from": cls._ROLES.get(str(message.get("role")), message.get("role")), "value": content}

    @staticmethod
    def _from_part(part: Any, pictures: list[Any]) -> str:
        if not isinstance(part, dict):
            raise ValueError("a message's content is text or a list of objects with a type")
        if not str(part.get("type", "")).startswith("image"):
            return str(part.get("text", ""))
        shown = part.get("image_url") or part.get("image") or part.get("url") or part.get("path")
        shown = shown.get("url") if isinstance(shown, dict) else shown
        if shown:
            pictures.append(shown)
        return IMAGE_MARK

    @model_validator(mode="after")
    def _check_turns(self) -> Self:
        spoken = [m for m in self.conversations if m.from_ != "system"]
        if not spoken or spoken[0].from_ != "human":
            raise ValueError("a conversation starts with a human turn")
        if any(a.from_ == b.from_ for a, b in pairwise(spoken)):
            raise ValueError("human and gpt turns must alternate")
        marks = sum(m.value.count(IMAGE_MARK) for m in self.conversations)
        if marks != len(self.images):
            raise ValueError(f"{marks} {IMAGE_MARK} marks in the text for {len(self.images)} pictures")
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

    @field_validator("question_id", "answer", mode="before")
    @classmethod
    def _idas_text(cls, value: Any) -> Any:
        return as_text(value)

    @property
    def images(self) -> list[str]:
        """The images as a list."""
        return as_list(self.image)

    @property
    def answers(self) -> list[str]:
        """All accepted answers."""
        return as_list(self.answer)


R = TypeVar("R", bound=Record)


def read_records(
    kind: type[R],
    source: str | Path,
    *,
    image_root: Path | None = None,
    on_error: Callable[[DataError], None] | None = None,
) -> Iterator[R]:
    """Read records from JSONL, from ``-``, or (a path ending in .json) from one JSON list.

    Image paths become absolute: relative ones start from `image_root`, else from the file's folder, else
    (standard input) from the working folder. `read_located` also gives the place of each record.

    Records are yielded as they are read, up to the first fault. From there the rest is only checked, so
    that all faults are reported at once; standard input is read no further than `Faults.SHOWN` faults.

    Raises:
        DataError: with ``file:line`` (or ``file[index]``) and the field, unless `on_error` takes it;
            `DataErrors` where there are several.
    """
    for _, record in read_located(kind, source, image_root=image_root, on_error=on_error):
        yield record


def read_located(
    kind: type[R],
    source: str | Path,
    *,
    image_root: Path | None = None,
    on_error: Callable[[DataError], None] | None = None,
) -> Iterator[tuple[str, R]]:
    """As `read_records`, yielding ``(where, record)``, where being ``file:line`` or ``file[index]``."""
    name = str(source)
    if name != STDIO and not Path(name).exists():
        raise DataError("no such file", where=name)
    root = image_root.absolute() if image_root else None
    root = root or (Path.cwd() if name == STDIO else Path(name).resolve().parent)
    faults = Faults()

    def collect(error: DataError) -> None:
        faults.add(error)
        if name == STDIO and faults.count == Faults.SHOWN:
            faults.check()

    take = on_error or collect
    empty = True
    for where, value in _objects(name, take):
        empty = False
        try:
            record = kind.from_json(value, where)
        except DataError as error:
            take(error)
            continue
        if not faults.count:
            yield where, _anchored(record, root)
    faults.check()
    if empty:
        raise DataError("holds no record", where=name)


def _objects(name: str, on_error: Callable[[DataError], None]) -> Iterable[tuple[str, dict[str, Any]]]:
    if name != STDIO and Path(name).suffix == ".json":
        try:
            values = read_json(Path(name))
        except DataError as error:
            error.hint = "a .json file is one JSON list; name it .jsonl if it has a record a line"
            raise
        if not isinstance(values, list):
            raise DataError("expected a JSON list of records", where=name)
        for index, value in enumerate(values):
            where = f"{name}[{index}]"
            if isinstance(value, dict):
                yield where, value
                continue
            on_error(DataError(f"expected a JSON object, found {type(value).__name__}", where=where))
        return
    yield from read_jsonl(name, on_error=on_error)


def _is_file(image: str) -> bool:
    """Whether an image is given as a path, not as an address or inline data."""
    return "://" not in image and not image.startswith("data:")


def _anchored(record: R, root: Path) -> R:
    def anchor(path: str) -> str:
        return str(root / path) if _is_file(path) else path

    if isinstance(record, KnowledgeTree):
        branches = [
            b.model_copy(update={"image": anchor(b.image)}) if b.image else b for b in record.branches
        ]
        return record.model_copy(update={"item": _anchored(record.item, root), "branches": branches})
    image = getattr(record, "image", None)
    if not image:
        return record
    anchored = anchor(image) if isinstance(image, str) else [anchor(p) for p in image]
    return record.model_copy(update={"image": anchored})


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
