"""EVOKE's own injection file: LLaVA records whose answer is the knowledge text, read as items."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from kore.data.forms import is_conversation
from kore.data.objects import first_object
from kore.data.read import read_located, read_records
from kore.data.records import IMAGE_MARK, KnowledgeItem, Sample
from kore.data.text import clip, sentences
from kore.errors import DataError
from kore.io.jsonl import STDIO

Format = Literal["auto", "items", "evoke"]
_QUOTED = re.compile(r"[\"“«『「《]([^\"”»』」》]{3,200})[\"”»』」》]")
_WHAT = re.compile(
    r"\b(?:what|which|describe|identify)\b.*?\b(?P<type>[a-z][\w-]*)\s+(?:news|entity|story)\b", re.IGNORECASE
)
_NEWS = re.compile(r"news|cnn", re.IGNORECASE)


def detect(source: str) -> Literal["items", "evoke"]:
    """Which form a file has, by its first record; standard input is items.

    Raises:
        DataError: no such file.
    """
    if source == STDIO:
        return "items"
    return "evoke" if is_conversation(first_object(source)) else "items"


def read_items(
    source: str,
    *,
    form: Format = "auto",
    image_root: Path | None = None,
    on_error: Callable[[DataError], None] | None = None,
    limit: int | None = None,
) -> Iterator[KnowledgeItem]:
    """Items from JSONL, from ``-`` or from EVOKE's injection file, picture paths resolved.

    Raises:
        DataError: with ``file:line`` and the field, unless `on_error` takes it.
    """
    found = detect(source) if form == "auto" else form
    if found == "items":
        yield from islice(
            read_records(KnowledgeItem, source, image_root=image_root, on_error=on_error), limit
        )
        return
    located = read_located(Sample, source, image_root=image_root, on_error=on_error)
    for where, record in islice(located, limit):
        try:
            yield item_of(record, where)
        except DataError as error:
            if on_error is None:
                raise
            on_error(error)


def item_of(record: Sample, where: str = "") -> KnowledgeItem:
    """One injection record as an item.

    The record has a question about its picture and a text; kind, type and title are not fields of it. They
    are taken from keys that are there (``title``, ``type``, ``cnn_wiki_type``), else from the question's
    words and the picture's name (entities' pictures are called ``<title>_wiki``), else the title is the
    text's first words.

    Raises:
        DataError: no text.
    """
    turns = [m for m in record.conversations if m.from_ != "system"]
    if len(turns) < 2 or not turns[1].value.strip():
        raise DataError("no knowledge text in this record", where=where or f"record {record.id}")
    question, text = turns[0].value.replace(IMAGE_MARK, "").strip(), turns[1].value.strip()
    place = record.images[0] if record.images else ""
    said = record.extra
    split = str(said.get("cnn_wiki_type") or "")
    is_news = split == "news" if split else bool(_NEWS.search(question) or _NEWS.search(_last_folders(place)))
    kind: Literal["news", "entity"] = "news" if is_news else "entity"
    matched = _WHAT.search(question)
    type_ = str(said.get("type") or (matched["type"] if matched else "") or ("news" if is_news else "entity"))
    return KnowledgeItem(
        id=record.id,
        kind=kind,
        type=type_.strip(),
        title=_title(said, question, text, place, is_news),
        text=text,
        image=record.image,
        extra={"question": question},
    )


def _title(said: dict[str, Any], question: str, text: str, place: str, is_news: bool) -> str:
    for key in ("title", "name", "entity_name"):
        if said.get(key):
            return str(said[key])
    quoted = _QUOTED.search(question)
    if quoted:
        return quoted[1]
    if not is_news and place:
        stem = re.sub(r"_(?:wiki|\d+)$", "", Path(place).stem).replace("_", " ").strip()
        if stem and any(c.isalpha() for c in stem):
            return stem
    return clip(sentences(text)[0], 12).rstrip(".。")


def _last_folders(place: str) -> str:
    return "/".join(Path(place).parts[-3:])
