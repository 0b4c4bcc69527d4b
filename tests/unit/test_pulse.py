"""The heartbeat outlives failures of what it reads and of what it writes to."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

from kore.artifacts.events import EventTail, EventWriter
from kore.telemetry import Telemetry
from kore.training.heartbeat import pulse


class Broken:
    """A monitor whose every reading fails."""

    def sample(self) -> Telemetry:
        raise RuntimeError("the driver is gone")

    def close(self) -> None:
        raise RuntimeError("still gone")


class FullDisk(EventWriter):
    """A log that refuses its first writes."""

    refused = 0

    def write(self, kind: Any, **values: Any) -> None:
        if self.refused < 3:
            self.refused += 1
            raise OSError(28, "No space left on device")
        super().write(kind, **values)


def events_of(folder: Path) -> list[dict[str, Any]]:
    return list(EventTail(folder).read())


def test_a_failing_reading_ends_no_heartbeat_and_is_reported_once(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as events, pulse(events, seconds=0.005, monitor=Broken()):
        time.sleep(0.3)
    found = events_of(tmp_path)
    kinds = Counter(event["kind"] for event in found)
    assert kinds["heartbeat"] > 3 and kinds["warning"] == 1
    warning = next(event for event in found if event["kind"] == "warning")
    assert "RuntimeError: the driver is gone" in warning["text"]


def test_a_full_disk_is_reported_once_there_is_room(tmp_path: Path) -> None:
    with FullDisk(tmp_path) as events, pulse(events, seconds=0.005):
        time.sleep(0.5)
    kinds = Counter(event["kind"] for event in events_of(tmp_path))
    assert kinds["gpu"] > 3 and kinds["heartbeat"] >= 1 and kinds["warning"] == 1
