"""What flows between the stages: KnowledgeItem, KnowledgeTree, Sample, Question.

Records are pydantic models, frozen; unknown keys are kept under ``extra``. Knows nothing of models.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from kore.data.forms import IMAGE_KEYS, TURN_KEYS, gather_images, read_conversation
from kore.data.forms import IMAGE_MARK as IMAGE_MARK
from kore.data.objects import is_pipe, read_objects
from kore.data.record_base import Record as Record
from kore.data.record_base import as_list, as_text
from kore.data.unread_keys import note_once, note_unread
from kore.errors import DataError, Faults
from kore.io.jsonl import STDIO


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

    read_keys: ClassVar[tuple[str, ...]] = (*IMAGE_KEYS, "question")

    @model_validator(mode="before")
    @classmethod
    def _read_forms(cls, value: Any) -> Any:
        return gather_images(value) if isinstance(value, dict) else value

    @field_validator("id", mode="before")
    @classmethod
    def _idas_text(cls, value: Any) -> Any:
        return as_text(value)

    @field_validator("facts", mode="before")
    @classmethod
    def _factsas_text(cls, value: Any) -> Any:
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
    read_keys: ClassVar[tuple[str, ...]] = (*TURN_KEYS, *IMAGE_KEYS)
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

    read_keys: ClassVar[tuple[str, ...]] = (
        *(*IMAGE_KEYS, "messages", "suite", "split"),
        *("title", "name", "entity_name", "type", "cnn_wiki_type"),  # of EVOKE's injection file
    )

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

    read_keys: ClassVar[tuple[str, ...]] = (*IMAGE_KEYS, "id", "split", "item", "item_id", "category", "key")

    @model_validator(mode="before")
    @classmethod
    def _read_forms(cls, value: Any) -> Any:
        return gather_images(value) if isinstance(value, dict) else value

    @field_validator("question_id", "answer", mode="before")
    @classmethod
    def _idas_text(cls, value: Any) -> Any:
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


def read_records(
    kind: type[R],
    source: str | Path,
    *,
    image_root: Path | None = None,
    on_error: Callable[[DataError], None] | None = None,
) -> Iterator[R]:
    """Read records from any form that `kore.data.objects.read_objects` reads.

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
    root = image_root.absolute() if image_root else _folder_of(name)
    faults = Faults()

    def collect(error: DataError) -> None:
        faults.add(error)
        if name == STDIO and faults.count == Faults.SHOWN:
            faults.check()

    take = on_error or collect
    empty = True
    for where, value in read_objects(name, take):
        empty = False
        try:
            record = read_record(kind, value, where)
        except DataError as error:
            take(error)
            continue
        if not faults.count:
            _note(record, value, where)
            yield where, _anchored(record, root)
    faults.check()
    if empty:
        raise DataError("file is empty", where=name)


def check_records(kind: type[Record], *sources: str | Path | None) -> None:
    """Check every record of files that are there and can be read again, before anything heavy is loaded.

    Raises:
        DataError: all faults of the first faulty file, each with its place.
    """
    for source in sources:
        path = Path(source or "")
        if source and (path.is_file() or path.is_dir()):
            deque(read_located(kind, path), maxlen=0)


def _folder_of(name: str) -> Path:
    """Where a source's relative image paths start."""
    if name == STDIO or is_pipe(Path(name)):
        return Path.cwd()
    path = Path(name).resolve()
    return path if path.is_dir() else path.parent


_LINE = re.compile(r"(?::(\d+)|\[(\d+)\])$")


def read_record(kind: type[R], value: dict[str, Any], where: str) -> R:
    """Validate one object of a file; a sample or question without an id gets one of its file and line.

    Raises:
        DataError: naming place and field.
    """
    return kind.from_json(_named(kind, value, where), where)


def _named(kind: type[Record], value: dict[str, Any], where: str) -> dict[str, Any]:
    key = "question_id" if kind is Question else "id"
    if kind not in (Sample, Question) or value.get(key) is not None:
        return value
    if kind is Question and value.get("id") is not None:
        return {**value, key: value["id"]}
    matched = _LINE.search(where)
    file = Path(where[: matched.start()] if matched else where).name.partition(".")[0]
    return {**value, key: f"{file}-{matched[1] or matched[2]}" if matched else file}


def _note(record: Record, value: dict[str, Any], where: str) -> None:
    """Report what of an object is not read."""
    note_unread(record, where)
    if isinstance(record, Sample):
        for message in record.conversations:
            note_unread(message, where)
    if isinstance(record, KnowledgeItem):
        empty = [key for key, fact in (value.get("facts") or {}).items() if fact is None]
        if empty:
            note_once(where, "facts", f"null facts are ignored: {', '.join(empty)}")


def _is_file(image: str) -> bool:
    """Whether an image is given as a path, not as an address."""
    return "://" not in image


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
