"""The append-only event log of a run: a writer, and a tail that many readers may use at once.

One JSON object a line, each written by one call; a new segment per writing process, so that a file is
never rewritten. Non-finite numbers become null and are named under ``nonfinite``.
"""

from __future__ import annotations

import math
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self, get_args

from kore.io.files import json_text, parse_json

Kind = Literal[
    "status", "step", "gpu", "probe", "checkpoint", "calibrate", "augment", "eval", "warning", "heartbeat"
]
VERSION = 1
HEAD = 64  # first bytes of a segment, which tell the time at which it was begun


class EventWriter:
    """Appends events to a new segment ``events-NNNN.jsonl`` of a run folder; threads may share it."""

    kinds: tuple[str, ...] = get_args(Kind)

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self._stream = _new_segment(folder)
        self._lock = threading.Lock()

    def write(self, kind: Kind, **values: Any) -> None:
        """Append one event with the time of writing."""
        event = {"v": VERSION, "t": round(time.time(), 3), "kind": kind, **values}
        bad = list(_nonfinite(values))
        if bad:
            event["nonfinite"] = bad
        line = (json_text(event) + "\n").encode()
        with self._lock:
            while line:  # a full disk takes a part of it, and then says so
                line = line[self._stream.write(line) :]

    def close(self) -> None:
        """Close the segment."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _new_segment(folder: Path) -> tuple[Path, BinaryIO]:
    while True:
        number = max((_number(p) for p in segments(folder)), default=0) + 1
        path = folder / f"events-{number:04d}.jsonl"
        try:
            # unbuffered: a line is one call to the system, so a kill hardly ever tears it
            return path, path.open("xb", buffering=0)
        except FileExistsError:  # another process took the number in between
            continue


def _nonfinite(value: Any, name: str = "") -> Iterator[str]:
    """Dotted names of the numbers that are not finite."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _nonfinite(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _nonfinite(inner, f"{name}.{index}")
    elif not isinstance(value, (str, int, bool, type(None))):
        number = value.item() if hasattr(value, "item") else value
        if isinstance(number, float) and not math.isfinite(number):
            yield name


def segments(folder: Path) -> list[Path]:
    """The event files of a run folder, oldest first."""
    return sorted((p for p in folder.glob("events-*.jsonl") if _number(p) >= 0), key=_number)


def _number(path: Path) -> int:
    found = re.fullmatch(r"events-([0-9]+)\.jsonl", path.name)
    return int(found[1]) if found else -1


@dataclass
class EventTail:
    """Reads what was appended since the last call, over all segments; keeps a torn last line for later.

    A segment that was replaced (a run that was restarted in the same folder) is read from its start.

    Attributes:
        bad_lines: how many lines were not events and were skipped.
    """

    folder: Path
    bad_lines: int = 0
    _known: dict[str, tuple[int, bytes, int]] = field(default_factory=dict)

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield new events, oldest first."""
        for path in segments(self.folder):
            try:
                data = self._new(path)
            except FileNotFoundError:  # the run was discarded while it was being read
                self._known.pop(path.name, None)
                continue
            for line in data.split(b"\n"):
                event = self._parse(line) if line else None
                if event is not None:
                    yield event

    def _new(self, path: Path) -> bytes:
        """Whole lines that were not read yet; moves the offset behind them."""
        with path.open("rb") as stream:
            inode, head = os.fstat(stream.fileno()).st_ino, stream.read(HEAD)
            known, begun, offset = self._known.get(path.name, (inode, b"", 0))
            # the number of a file that was removed may be given to the next one
            if known != inode or not head.startswith(begun) or stream.seek(0, 2) < offset:
                offset = 0
            stream.seek(offset)
            data = stream.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._known[path.name] = (inode, head, offset + len(whole))
        return whole

    def _parse(self, line: bytes) -> dict[str, Any] | None:
        try:
            event = parse_json(line.decode())
        except ValueError:
            self.bad_lines += 1
            return None
        if not isinstance(event, dict) or "kind" not in event:
            self.bad_lines += 1
            return None
        return event
