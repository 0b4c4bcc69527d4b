"""Trees and rejected records for browsing: an index of line offsets, records read one at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

TREES, REJECTED = "tree.jsonl", "rejected.jsonl"
SEAM = 64  # bytes at either end of the part read, to recognise the file again


@dataclass(frozen=True)
class Entry:
    """A record's place, and enough of it to list and filter."""

    path: Path
    offset: int
    title: str
    type: str
    rejected: bool = False


def tree_folder(inputs: dict[str, dict[str, str]], run: Path) -> Path | None:
    """The augment output that a run uses, by its inputs or beside it."""
    candidates: list[Path] = []
    for name in ("tree", "samples", "items", *inputs):
        if given := inputs.get(name, {}).get("path"):
            path = Path(given)
            candidates += [path, path.parent]
    candidates += [run, run / "tree", run / "augment"]
    return next((p for p in candidates if (p / TREES).is_file()), None)


@dataclass(frozen=True)
class Index:
    """The records of a JSONL file, as far as it was read.

    Attributes:
        end: where reading continues. seams: the first and the last bytes before that.
        odd: lines without a record.
    """

    path: Path
    rejected: bool = False
    entries: tuple[Entry, ...] = ()
    end: int = 0
    seams: tuple[bytes, bytes] = (b"", b"")
    odd: int = 0

    def grown(self, keep_reading: Callable[[], bool] = lambda: True) -> Index:
        """Add what was appended since; read from the start if the file was rewritten.

        Args:
            keep_reading: called at each line; False stops and returns this index.
        """
        if not self.path.is_file():
            return Index(self.path, self.rejected)
        with self.path.open("rb") as stream:
            index = self if _seams(stream, self.end) == self.seams else Index(self.path, self.rejected)
            entries, end, odd = list(index.entries), index.end, index.odd
            stream.seek(end)
            for line in stream:
                if not keep_reading():
                    return self
                record = _record(line)
                if record is not None:
                    entries.append(Entry(self.path, end, *_name(record), self.rejected))
                elif not line.endswith(b"\n"):
                    break  # still being written
                elif line.strip():
                    odd += 1
                end += len(line)
            return Index(self.path, self.rejected, tuple(entries), end, _seams(stream, end), odd)


def _seams(stream: BinaryIO, end: int) -> tuple[bytes, bytes]:
    stream.seek(0)
    first = stream.read(min(SEAM, end))
    stream.seek(max(0, end - SEAM))
    return first, stream.read(min(SEAM, end))


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _name(record: dict[str, Any]) -> tuple[str, str]:
    item = record.get("item")
    if isinstance(item, dict):
        return str(item.get("title") or item.get("id") or "?"), str(item.get("type") or "")
    title = record.get("title") or item or record.get("id") or record.get("question") or "?"
    return str(title), str(record.get("task") or record.get("type") or record.get("kind") or "")


def read(entry: Entry) -> dict[str, Any]:
    """One record, whole.

    Raises:
        OSError, ValueError: the file is gone, or it was rewritten and the record moved.
    """
    with entry.path.open("rb") as stream:
        stream.seek(entry.offset)
        line = stream.readline()
    record = _record(line)
    if record is None or _name(record) != (entry.title, entry.type):
        raise ValueError("another record, or none")
    return record


def image_of(record: dict[str, Any], folder: Path) -> str | None:
    """The record's first image as a path that can be opened from here."""
    holder = record.get("item") if isinstance(record.get("item"), dict) else record
    image = (holder or {}).get("image") or record.get("image")
    if isinstance(image, list):
        image = image[0] if image else None
    if not isinstance(image, str):
        return None
    return image if "://" in image or Path(image).is_absolute() else str(folder / image)
