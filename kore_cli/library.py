"""Trees and rejected records for browsing: an index of line offsets, records read one at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TREES, REJECTED = "tree.jsonl", "rejected.jsonl"


@dataclass(frozen=True)
class Entry:
    """Where a record lies, and enough of it to list and filter."""

    path: Path
    offset: int
    title: str
    type: str
    rejected: bool = False


def tree_folder(inputs: dict[str, dict[str, str]], run: Path) -> Path | None:
    """The augment output that a run was made from, by its inputs or beside it."""
    candidates: list[Path] = []
    for name in ("tree", "samples", "items", *inputs):
        if told := inputs.get(name, {}).get("path"):
            path = Path(told)
            candidates += [path, path.parent]
    candidates += [run, run / "tree", run / "augment"]
    return next((p for p in candidates if (p / TREES).is_file()), None)


def index(path: Path, *, rejected: bool = False) -> Iterator[Entry]:
    """The records of a JSONL file; lines that are not JSON objects are passed over."""
    if not path.is_file():
        return
    with path.open("rb") as stream:
        offset = 0
        for line in stream:
            here, offset = offset, offset + len(line)
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                title, kind = _name(record)
                yield Entry(path, here, title, kind, rejected)


def _name(record: dict[str, Any]) -> tuple[str, str]:
    item = record.get("item")
    if isinstance(item, dict):
        return str(item.get("title") or item.get("id") or "?"), str(item.get("type") or "")
    title = record.get("title") or item or record.get("id") or record.get("question") or "?"
    return str(title), str(record.get("task") or record.get("type") or record.get("kind") or "")


def read(entry: Entry) -> dict[str, Any]:
    """One record, whole.

    Raises:
        OSError, ValueError: the file is gone, or it was rewritten and the record is elsewhere.
    """
    with entry.path.open("rb") as stream:
        stream.seek(entry.offset)
        value = json.loads(stream.readline())
    if not isinstance(value, dict) or _name(value) != (entry.title, entry.type):
        raise ValueError("another record, or none")
    return value


def image_of(record: dict[str, Any], folder: Path) -> str | None:
    """The record's first picture as a path that can be opened from here."""
    holder = record.get("item") if isinstance(record.get("item"), dict) else record
    image = (holder or {}).get("image") or record.get("image")
    if isinstance(image, list):
        image = image[0] if image else None
    if not isinstance(image, str):
        return None
    return image if "://" in image or Path(image).is_absolute() else str(folder / image)
