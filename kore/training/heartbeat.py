"""Signs of life beside the training loop: machine readings and heartbeats, from a thread of their own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from kore.artifacts.events import EventWriter
from kore.telemetry import Monitor

SECONDS = 3.0
BEATS = 4  # a heartbeat every so many readings


@contextmanager
def pulse(events: EventWriter, *, seconds: float = SECONDS) -> Iterator[None]:
    """Write ``gpu`` events every few seconds and ``heartbeat`` events less often, while the block runs."""
    stop = threading.Event()
    monitor = Monitor()

    def beat() -> None:
        count = 0
        while True:
            events.write("gpu", **monitor.sample().values())
            if count % BEATS == 0:
                events.write("heartbeat")
            count += 1
            if stop.wait(seconds):
                return

    thread = threading.Thread(target=beat, name="pulse", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        monitor.close()
