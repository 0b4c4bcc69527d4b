"""The append-only event log of a run: a writer, and a tail that many readers may use at once.

One JSON object a line, flushed per line; a new segment per writing process, so that a file is never
rewritten. Non-finite numbers become null and are named under ``nonfinite``.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

Kind = Literal[
    "status", "step", "gpu", "probe", "checkpoint", "calibrate", "augment", "eval", "warning", "heartbeat"
]
VERSION = 1


class EventWriter:
    """Appends events to a new segment ``events-NNNN.jsonl`` of a run folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        number = max((int(p.stem.split("-")[1]) for p in segments(folder)), default=0) + 1
        self.path = folder / f"events-{number:04d}.jsonl"
        self._stream = self.path.open("x", encoding="utf-8")

    def write(self, kind: Kind, **values: Any) -> None:
        """Append one event with the time of writing."""
        bad = [k for k, v in values.items() if isinstance(v, float) and not math.isfinite(v)]
        for key in bad:
            values[key] = None
        event = {"v": VERSION, "t": round(time.time(), 3), "kind": kind, **values}
        if bad:
            event["nonfinite"] = bad
        self._stream.write(json.dumps(event, ensure_ascii=False) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Close the segment."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def segments(folder: Path) -> list[Path]:
    """The event files of a run folder, oldest first."""
    return sorted(folder.glob("events-[0-9]*.jsonl"))


@dataclass
class EventTail:
    """Reads what was appended since the last call, over all segments; keeps a torn last line for later.

    Attributes:
        bad_lines: how many lines were not JSON objects and were skipped.
    """

    folder: Path
    bad_lines: int = 0
    _offsets: dict[str, int] = field(default_factory=dict)

    def read(self, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield new events, oldest first, at most `limit` bytes of each segment if given."""
        for path in segments(self.folder):
            offset = self._offsets.get(path.name, 0)
            with path.open("rb") as stream:
                stream.seek(offset)
                data = stream.read(-1 if limit is None else limit)
            whole = data.rfind(b"\n") + 1
            self._offsets[path.name] = offset + whole
            for line in data[:whole].splitlines():
                event = self._parse(line)
                if event is not None:
                    yield event

    def _parse(self, line: bytes) -> dict[str, Any] | None:
        try:
            event = json.loads(line)
        except ValueError:
            self.bad_lines += 1
            return None
        if not isinstance(event, dict) or "kind" not in event:
            self.bad_lines += 1
            return None
        return event
