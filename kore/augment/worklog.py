"""The log of finished items and paid calls: what a kill leaves, and what the final files are written from."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self

from kore.io.jsonl import dump_line, mend_log

NAME = "items.partial.jsonl"


class WorkLog:
    """Appends one entry per finished item, in the order of finishing; reads them back in the items' order.

    Only places in the file are kept in memory, so the log may be far larger than it.

    Attributes:
        paid_in: input tokens that were paid for when the log was opened; paid_out: output tokens.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        folder.mkdir(parents=True, exist_ok=True)
        mend_log(self.path)
        self._places: dict[int, int] = {}
        self._stream: IO[bytes] = self.path.open("a+b")
        self._stream.seek(0)
        self.paid_in = self.paid_out = place = 0
        for line in self._stream:
            # a line spoiled by a crash of the machine: made again
            with suppress(ValueError, KeyError, TypeError):
                value = json.loads(line)
                if "paid" in value:
                    tokens_in, tokens_out = map(int, value["paid"])
                    self.paid_in, self.paid_out = self.paid_in + tokens_in, self.paid_out + tokens_out
                else:
                    self._places[value["index"]] = place
            place += len(line)

    def __contains__(self, index: int) -> bool:
        return index in self._places

    def __len__(self) -> int:
        return len(self._places)

    def add(self, index: int, entry: dict[str, Any]) -> None:
        """Append an item's entry."""
        self._places[index] = self._append({"index": index, **entry})

    def pay(self, tokens_in: int, tokens_out: int) -> None:
        """Append what a call took."""
        self._append({"paid": [tokens_in, tokens_out]})

    def _append(self, value: dict[str, Any]) -> int:
        self._stream.seek(0, 2)
        place = self._stream.tell()
        self._stream.write(dump_line(value).encode())
        self._stream.flush()
        return place

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
