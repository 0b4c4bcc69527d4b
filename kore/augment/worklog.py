"""The log of finished items: what a kill leaves, and what the final files are written from, item by item."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self

from kore.jsonl import dump_line, mend_log

NAME = "items.partial.jsonl"


class WorkLog:
    """Appends one entry per finished item, in the order of finishing; reads them back in the items' order.

    Only places in the file are kept in memory, so the log may be far larger than it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        folder.mkdir(parents=True, exist_ok=True)
        mend_log(self.path)
        self._places: dict[int, int] = {}
        self._stream: IO[bytes] = self.path.open("a+b")
        self._stream.seek(0)
        place = 0
        for line in self._stream:
            with suppress(ValueError, KeyError):  # a line spoiled by a crash of the machine: made again
                self._places[json.loads(line)["index"]] = place
            place += len(line)

    def __contains__(self, index: int) -> bool:
        return index in self._places

    def __len__(self) -> int:
        return len(self._places)

    def add(self, index: int, entry: dict[str, Any]) -> None:
        """Append an item's entry."""
        self._stream.seek(0, 2)
        place = self._stream.tell()
        self._stream.write(dump_line({"index": index, **entry}).encode())
        self._stream.flush()
        self._places[index] = place

    def get(self, index: int) -> dict[str, Any]:
        """Read an item's entry."""
        self._stream.seek(self._places[index])
        entry: dict[str, Any] = json.loads(self._stream.readline())
        return entry

    def indices(self) -> list[int]:
        """Finished items, in order."""
        return sorted(self._places)

    def remove(self) -> None:
        """Delete the log, once the final files are there."""
        self.close()
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
