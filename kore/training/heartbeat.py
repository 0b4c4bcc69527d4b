"""Background thread that writes machine readings and heartbeats beside the training loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from kore.artifacts.events import EventWriter
from kore.telemetry import Monitor, Probe

SECONDS = 3.0
BEATS = 4  # a heartbeat every so many readings


@contextmanager
def pulse(events: EventWriter, *, seconds: float = SECONDS, monitor: Probe | None = None) -> Iterator[None]:
    """Write ``gpu`` events every few seconds and ``heartbeat`` events less often, while the block runs.

    A failed reading or write does not end the heartbeat, or a live run would look dead; the first failure is
    written as a warning.

    Args:
        monitor: what is read; default: this machine.
    """
    stop = threading.Event()
    probe = monitor or Monitor()

    def work() -> None:
        count, failure, reported = 0, "", False
        while True:
            steps: list[Callable[[], None]] = [lambda: events.write("gpu", **probe.sample().values())]
            if count % BEATS == 0:
                steps.append(lambda: events.write("heartbeat"))
            for step in steps:
                try:
                    step()
                except Exception as error:
                    failure = failure or f"{type(error).__name__}: {error}"
            if failure and not reported:
                with suppress(Exception):  # a full disk refuses the warning too: written once there is room
                    events.write("warning", text=f"machine readings failed: {failure}", code="heartbeat")
                    reported = True
            count += 1
            if stop.wait(seconds):
                return

    thread = threading.Thread(target=work, name="pulse", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        with suppress(Exception):  # a driver that fails at the end must not fail the run
            probe.close()
