"""Progress of long work: one protocol that every stage reports through, and sinks for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

EVERY = 30.0  # seconds between two lines about one stage
EVENT_EVERY = 1.0  # seconds between two events of one stage


class Progress(Protocol):
    """Called after each piece of work.

    Args:
        stage: augment, calibrate, train, or the name of a suite or file.
        done: pieces finished; equal to `total` when the stage is over.
        total: pieces in all; None while unknown.
        note: shown beside the bar: the loss, the cost, the result.
    """

    def __call__(self, stage: str, done: int, total: int | None = None, note: str = "") -> None: ...


class Events(Protocol):
    """A run's event log (`kore.artifacts.events.EventWriter`).

    Attributes:
        kinds: the kinds of event that it takes.
    """

    kinds: tuple[str, ...]

    def write(self, kind: Any, **values: Any) -> None:
        """Append one event."""
        ...


def silent(stage: str, done: int, total: int | None = None, note: str = "") -> None:
    """Shows nothing."""


def lines(stream: TextIO, *, every: float = EVERY) -> Progress:
    """Plain lines on a text stream: each finished stage, and how far a long one is."""

    def write(text: str) -> None:
        stream.write(text + "\n")
        stream.flush()

    return each_line(write, every=every)


def each_line(write: Callable[[str], None], *, every: float = EVERY) -> Progress:
    """As `lines`, calling `write` with each line."""
    started: dict[str, float] = {}
    finished: set[str] = set()
    written = time.monotonic()

    def report(stage: str, done: int, total: int | None = None, note: str = "") -> None:
        nonlocal written
        now = time.monotonic()
        begun = started.setdefault(stage, now)
        tail = f": {note}" if note else ""
        if total is not None and done >= total and stage not in finished:
            finished.add(stage)
            write(f"{stage} ({now - begun:.0f} s){tail}")
            written = now
        elif now - written >= every and stage not in finished:
            write(f"{stage} {done}{f' of {total}' if total else ''}{tail}")
            written = now

    return report


@contextmanager
def reminded(report: Progress, *, every: float | None = None) -> Iterator[Progress]:
    """A sink that reports the last progress again while nothing new comes, so that `lines` keep coming."""
    last: tuple[str, int, int | None, str] | None = None
    over, lock = threading.Event(), threading.Lock()

    def passed_on(stage: str, done: int, total: int | None = None, note: str = "") -> None:
        nonlocal last
        with lock:
            last = (stage, done, total, note)
            report(*last)

    def remind() -> None:
        while not over.wait((EVERY if every is None else every) / 3):
            with lock:
                if last is not None:
                    report(*last)

    thread = threading.Thread(target=remind, name="kore-progress", daemon=True)
    thread.start()
    try:
        yield passed_on
    finally:
        over.set()
        thread.join()


@contextmanager
def repeated(
    write: Callable[[str], None], label: str, total: int | None = None, *, every: float | None = None
) -> Iterator[Callable[..., None]]:
    """Write a line about a stage at least every `every` seconds (default: `EVERY`), also while nothing
    advances. Yields ``advance(n=1, note="")``."""
    done, said = 0.0, ""
    over = threading.Event()

    def advance(n: float = 1, note: str = "") -> None:
        nonlocal done, said
        done, said = done + n, note

    def remind() -> None:
        while not over.wait(EVERY if every is None else every):
            write(f"{label}: {done:.0f}{f' of {total}' if total else ''}{f', {said}' if said else ''}")

    thread = threading.Thread(target=remind, name="kore-progress", daemon=True)
    thread.start()
    try:
        yield advance
    finally:
        over.set()
        thread.join()


def event_log(events: Events) -> Progress:
    """Events of a run: at most one a second of each stage, and its end. A stage that is no kind of event
    is left out."""
    last: dict[str, float] = {}

    def report(stage: str, done: int, total: int | None = None, note: str = "") -> None:
        kind, _, text = stage.partition(" ")
        now, over = time.monotonic(), total is not None and done >= total
        if kind in events.kinds and (over or now - last.get(stage, -EVENT_EVERY) >= EVENT_EVERY):
            last[stage] = now
            events.write(kind, text=text or note, done=done, total=total)

    return report


def both(first: Progress, second: Progress) -> Progress:
    """Two sinks at once."""

    def report(stage: str, done: int, total: int | None = None, note: str = "") -> None:
        first(stage, done, total, note)
        second(stage, done, total, note)

    return report


def renamed(progress: Progress, stage: str) -> Progress:
    """A sink that reports every stage under one name."""
    name = stage

    def report(stage: str, done: int, total: int | None = None, note: str = "") -> None:
        progress(name, done, total, note)

    return report
