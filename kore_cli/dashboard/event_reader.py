"""Reads a run's events: the newest at once, the older ones piece by piece."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kore.artifacts.events import HEAD, segments
from kore_cli.dashboard.reducer import joined, reduce
from kore_cli.dashboard.store import DashboardState

TAIL = 2 << 20
PIECE = 1 << 20


@dataclass
class EventReader:
    """Events of a run folder: the newest at once, the older ones piece by piece.

    Attributes:
        state: the state so far; it lacks older events until `history` is None.
    """

    folder: Path
    tail: int = TAIL
    state: DashboardState = field(default_factory=DashboardState)
    bad_lines: int = 0
    _offsets: dict[str, int] = field(default_factory=dict)
    _heads: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    _past: DashboardState = field(default_factory=DashboardState)
    _todo: list[tuple[Path, int, int]] = field(default_factory=list)
    _todo_bytes: int = 0
    _recent: DashboardState = field(default_factory=DashboardState)

    @property
    def history(self) -> float | None:
        """Share of the older events that has been read, None when nothing is left."""
        if not self._todo:
            return None
        left = sum(stop - start for _, start, stop in self._todo)
        return 1 - left / max(1, self._todo_bytes)

    def open(self) -> None:
        """Read the newest events and leave those before them to `look_back`."""
        paths = segments(self.folder)
        room = self.tail
        fresh: list[tuple[Path, int]] = []
        for path in reversed(paths):
            size = path.stat().st_size
            start = max(0, size - room)
            fresh.append((path, start))
            room -= size - start
        for path, start in reversed(fresh):
            start = self._line_start(path, start)
            if start:
                self._todo.append((path, 0, start))
            self._offsets[path.name] = start
        self._todo_bytes = sum(stop for _, _, stop in self._todo)
        self.follow()

    @property
    def replaced(self) -> bool:
        """Whether the files that were read are gone: a run was restarted in the same folder."""
        return any(self._is_another(self.folder / name, *head) for name, head in self._heads.items())

    def _is_another(self, path: Path, inode: int, head: bytes) -> bool:
        try:
            stat = path.stat()
            # an inode number may be reused after a file is removed
            another = stat.st_ino != inode or not _head(path).startswith(head)
        except FileNotFoundError:
            return True
        return another or stat.st_size < self._offsets.get(path.name, 0)

    def follow(self) -> bool:
        """Read what was appended; returns whether anything was."""
        batch: list[dict[str, Any]] = []
        for path in segments(self.folder):
            if len(self._heads.get(path.name, (0, b""))[1]) < HEAD:
                self._heads[path.name] = (path.stat().st_ino, _head(path))
            offset = self._offsets.get(path.name, 0)
            size = path.stat().st_size
            while offset < size:
                events, offset_after = self._piece(path, offset, min(size, offset + PIECE))
                batch.extend(events)
                if offset_after == offset:
                    break
                offset = offset_after
            self._offsets[path.name] = offset
        if not batch:
            return False
        if self._todo:
            self._recent = reduce(self._recent, batch)
            self.state = self._recent
        else:
            self.state = reduce(self.state, batch)
        return True

    def look_back(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> bool:
        """Spend up to `seconds` on older events; returns whether anything was read."""
        if not self._todo:
            return False
        end = clock() + seconds
        while self._todo and clock() < end:
            path, start, stop = self._todo[0]
            events, after = self._piece(path, start, min(stop, start + PIECE // 4), past=True)
            self._past = reduce(self._past, events)
            if after >= stop or after == start:
                self._todo.pop(0)
            else:
                self._todo[0] = (path, after, stop)
        self.state = joined(self._past, self._recent)
        if not self._todo:
            self._past = self._recent = DashboardState()
        return True

    def _line_start(self, path: Path, offset: int) -> int:
        if not offset:
            return 0
        with path.open("rb") as stream:
            stream.seek(offset - 1)
            stream.readline()
            return stream.tell()

    def _piece(
        self, path: Path, start: int, stop: int, *, past: bool = False
    ) -> tuple[list[dict[str, Any]], int]:
        with path.open("rb") as stream:
            stream.seek(start)
            data = stream.read(stop - start)
            whole = data.rfind(b"\n") + 1
            if not whole and len(data) == stop - start:
                # a line longer than a piece: read all of it
                data += stream.readline()
                whole = len(data) if data.endswith(b"\n") else 0
        return list(self._parse(data[:whole], past)), start + whole

    def _parse(self, data: bytes, past: bool) -> Iterator[dict[str, Any]]:
        for line in data.split(b"\n"):
            if not line:
                continue
            if past and (b'"kind": "gpu"' in line or b'"kind": "heartbeat"' in line):
                yield {"kind": "past"}  # old readings are of no use now, but count
                continue
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                self.bad_lines += 1
                continue
            if isinstance(event, dict) and "kind" in event:
                yield event
            else:
                self.bad_lines += 1


def _head(path: Path) -> bytes:
    """The first bytes of a file, which hold the time of its first event."""
    with path.open("rb") as stream:
        return stream.read(HEAD)
