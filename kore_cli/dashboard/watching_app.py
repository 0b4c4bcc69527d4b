"""The dashboard without its screens: polls a run folder in a thread and keeps what it read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from textual import on
from textual.message import Message

from kore.artifacts.run import title_of
from kore_cli.dashboard.base_app import PlainApp
from kore_cli.dashboard.spectra_reader import SpectrumSet, distinct
from kore_cli.dashboard.store import DashboardState
from kore_cli.dashboard.watcher import RunSource, Snapshot, same

Images = Literal["auto", "blocks", "off"]
MIN_WAIT, MAX_WAIT = 0.5, 4.0
HISTORY_WAIT = 0.25  # between polls while older events are read


@dataclass(frozen=True)
class Overlay:
    """Another run, drawn over the one watched. `unread`: some of its older events are still unread."""

    name: str
    folder: Path
    state: DashboardState
    spectra: tuple[SpectrumSet, ...] = ()
    unread: bool = False


class WatchingApp(PlainApp):
    """An app that follows a run; the screens know the app by this type.

    Args:
        source: the run to watch. others: runs to draw over it.
        images: pictures by the terminal's best protocol, in half blocks, or not at all.
        new_source: creates a source for a folder.
        live: False reads only on `refresh_now` (tests).
        share: of a core that following the run may take.

    Attributes:
        snapshot: the newest. shown: the one on the screen, which is older while paused.
    """

    class Fresh(Message):
        """The run folder was polled."""

        def __init__(self, snapshot: Snapshot, overlays: tuple[Overlay, ...]) -> None:
            super().__init__()
            self.snapshot = snapshot
            self.overlays = overlays

    def __init__(
        self,
        source: RunSource,
        others: tuple[RunSource, ...] = (),
        *,
        images: Images = "auto",
        new_source: Callable[[Path], RunSource] = RunSource,
        live: bool = True,
        share: float = 0.015,
    ) -> None:
        super().__init__()
        self.source, self.others = source, list(others)
        self.images: Images = images
        self.snapshot: Snapshot | None = None
        self.shown: Snapshot | None = None
        self.overlays: tuple[Overlay, ...] = ()
        self.paused = False
        self._newest_overlays: tuple[Overlay, ...] = ()
        self._new_source, self._live, self._share = new_source, live, share
        self._stop, self._wake = threading.Event(), threading.Event()

    def on_mount(self) -> None:
        """Start the polling thread."""
        if self._live:
            self.run_worker(self._watch, thread=True, name="watch", exit_on_error=True)

    def on_unmount(self) -> None:
        """Stop the polling thread."""
        self._stop.set()
        self._wake.set()

    def _watch(self) -> None:
        pace = Pace(self._share)
        turn = 0
        overlays: tuple[Overlay, ...] = ()
        while not self._stop.is_set():
            start = time.monotonic()
            snapshot = self.source.poll(look_back=0.2)
            reading = any(o.unread for o in overlays)
            if turn % 8 == 0 or reading or len(overlays) != len(self.others):
                overlays = self._read_overlays(0.1)
            turn += 1
            if self._stop.is_set():
                return
            self.post_message(self.Fresh(snapshot, overlays))
            reading = reading or snapshot.history is not None
            rest = max(0.05, HISTORY_WAIT - (time.monotonic() - start))
            self._wake.wait(rest if reading else pace.wait())
            self._wake.clear()

    def _read_overlays(self, look_back: float) -> tuple[Overlay, ...]:
        overlays = []
        for other in list(self.others):
            snapshot = other.poll(look_back=look_back)
            if snapshot.folder is not None:
                name, unread = title_of(snapshot.folder), snapshot.history is not None
                overlays.append(Overlay(name, snapshot.folder, snapshot.state, snapshot.spectra, unread))
        return tuple(overlays)

    def refresh_now(self) -> None:
        """Poll in this thread and show the result (tests, and without live watching)."""
        self.take(self.source.poll(look_back=5.0), self._read_overlays(5.0))

    @on(Fresh)
    def _fresh(self, message: Fresh) -> None:
        self.take(message.snapshot, message.overlays)

    def take(self, snapshot: Snapshot, overlays: tuple[Overlay, ...]) -> None:
        """Keep a snapshot and show it.

        The spectra of the overlays (runs, or covariance folders) follow the run's own.
        """
        drawn = tuple(s for o in overlays for s in o.spectra)
        if drawn:
            snapshot = replace(snapshot, spectra=distinct([*snapshot.spectra, *drawn]))
        self.snapshot, self._newest_overlays = snapshot, overlays
        if not self.paused:
            self.shown, self.overlays = snapshot, overlays
        self.show_snapshot(snapshot)

    def show_snapshot(self, snapshot: Snapshot) -> None:
        """Let the active screen show a new snapshot."""

    def pause(self, paused: bool) -> None:
        """Freeze what is shown, or show the newest again."""
        self.paused = paused
        if not paused:
            self.shown, self.overlays = self.snapshot, self._newest_overlays

    def watch_run(self, folder: Path) -> None:
        """Watch another run, and end a pause."""
        self.paused = False
        self.source = self._new_source(folder)
        self.snapshot = self.shown = None
        self.others = [o for o in self.others if not same(o.folder, folder)]
        self.wake()

    def toggle_overlay(self, folder: Path) -> None:
        """Draw another run over this one, or stop doing so."""
        if any(same(o.folder, folder) for o in self.others):
            self.others = [o for o in self.others if not same(o.folder, folder)]
        else:
            self.others.append(self._new_source(folder))
        self.wake()

    def wake(self) -> None:
        """Poll now."""
        self._wake.set()
        if not self._live:
            self.refresh_now()


class Pace:
    """How long to wait between polls: the more time the process takes, the longer.

    Args:
        share: of a core that following may take. The rate stays between 2 polls a second and one in
            4 seconds.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._cpu, self._wall = time.process_time(), time.monotonic()
        self._wait = MIN_WAIT

    def wait(self) -> float:
        """Seconds until the next poll."""
        cpu, wall = time.process_time(), time.monotonic()
        if wall - self._wall >= 2.0:
            used = (cpu - self._cpu) / (wall - self._wall)
            self._wait = min(MAX_WAIT, max(MIN_WAIT, self._wait * min(1.6, max(0.6, used / self._share))))
            self._cpu, self._wall = cpu, wall
        return self._wait
