"""Polls a run folder: newest events first, older ones in the background.

Imports no Textual; a thread of the app calls `RunSource.poll` (a snapshot calls it once).
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from kore.artifacts import run as runs
from kore.artifacts.events import segments
from kore.artifacts.run import SPECTRA, Run, RunState
from kore.errors import KoreError
from kore.telemetry import Probe, Telemetry
from kore_cli.dashboard.event_reader import EventReader
from kore_cli.dashboard.run_status import Liveness, judge
from kore_cli.dashboard.spectra_reader import SpectrumSet, distinct, read_spectra
from kore_cli.dashboard.store import DashboardState, EvalRow
from kore_cli.render.summaries import read_summaries, score_files

LOG_LINES = 200
PROBE_EVERY = 2.0
NEWEST_EVERY = 2.0
RESULTS_EVERY = 4  # polls


@dataclass(frozen=True)
class Snapshot:
    """Everything that the screens show, at one moment.

    Attributes:
        history: share of the older events read so far; None when all are read.
        readings: (time, machine) pairs of the last minute. source: where they come from.
    """

    folder: Path | None
    run: RunState | None
    state: DashboardState
    liveness: Liveness
    now: float
    log: tuple[str, ...] = ()
    spectra: tuple[SpectrumSet, ...] = ()
    results: tuple[EvalRow, ...] = ()
    readings: tuple[tuple[float, Telemetry], ...] = ()
    source: str = ""
    history: float | None = None
    bad_lines: int = 0
    problem: str | None = None


def memory_of(pid: int) -> int | None:
    """The resident memory of a process in bytes; None if it cannot be read."""
    try:
        import psutil
    except ImportError:
        return None
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except (psutil.Error, ValueError):
        return None


class RunSource:
    """A run folder as a stream of snapshots.

    Args:
        folder: the run to watch, which need not exist yet; None for the newest that appears.
        probe: reads the machine when the run's process is on this host; None reads nothing.
        clock: Unix time, replaced in tests.
        complaint: returns what else went wrong (a child process that failed).
        memory: resident bytes of a process of this host.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        probe: Probe | None = None,
        clock: Callable[[], float] = time.time,
        alive: Callable[[RunState], bool | None] = lambda run: run.alive,
        complaint: Callable[[], str | None] = lambda: None,
        memory: Callable[[int], int | None] = memory_of,
    ) -> None:
        self.folder = folder
        self._newest, self._look_at = folder is None, 0.0
        self._probe, self._clock, self._alive = probe, clock, alive
        self._complaint, self._memory = complaint, memory
        self._reader: EventReader | None = None
        self._turn = 0
        self._run: RunState | None = None
        self._stamps: dict[str, float] = {}
        self._log: tuple[str, ...] = ()
        self._spectra: tuple[SpectrumSet, ...] = ()
        self._results: tuple[EvalRow, ...] = ()
        self._local: tuple[tuple[float, Telemetry], ...] = ()
        self._sets: dict[Path, SpectrumSet] = {}
        self._rows: dict[Path, list[EvalRow]] = {}
        self._problems: dict[Path, str] = {}

    def poll(self, *, look_back: float = 0.1) -> Snapshot:
        """Read what changed since the last call.

        Args:
            look_back: seconds to spend on older events, if some are unread.
        """
        now = self._clock()
        if self._newest and now >= self._look_at:
            with contextlib.suppress(KoreError, OSError):
                self._switch_to_newest(now)
        if self.folder is not None:
            try:
                self._enter(self.folder)
                self._read(Run(self.folder), look_back)
                self._problems.pop(self.folder, None)
            except (KoreError, OSError) as error:
                self._problems[self.folder] = str(error)
        state = self._reader.state if self._reader else DashboardState()
        alive = self._alive(self._run) if self._run else None
        live = judge(self.folder, self._run, state, alive=alive, now=now)
        readings, source = self._machine(state, live, now)
        return Snapshot(
            folder=self.folder,
            run=self._run,
            state=state,
            liveness=live,
            now=now,
            log=self._log,
            spectra=self._spectra,
            results=self._results,
            readings=readings,
            source=source,
            history=self._reader.history if self._reader else None,
            bad_lines=self._reader.bad_lines + state.odd if self._reader else 0,
            problem=self._complaint() or "\n".join(self._problems.values()) or None,
        )

    def whole(self) -> Snapshot:
        """Read the folder with all of its readable events."""
        snapshot, read = self.poll(), -1.0
        while snapshot.history is not None and snapshot.history > read:
            read = snapshot.history
            snapshot = self.poll(look_back=60.0)
        return snapshot

    def _enter(self, folder: Path) -> None:
        """Switch to the run inside the folder of a ``kore inject``, as soon as it exists."""
        inside = runs.run_at(folder) if self._run is None else None
        if inside is not None and inside.folder != folder:
            self.folder = inside.folder
            self._reset()

    def _switch_to_newest(self, now: float) -> None:
        """Switch to the newest run; leave the present one only when it is over and another is working."""
        self._look_at = now + NEWEST_EVERY
        working = self._run is not None and self._run.working
        over = not working or (self._run is not None and self._alive(self._run) is False)
        newest = next(iter(runs.all_runs()), None) if over else None
        if newest is None or newest.folder == self.folder:
            return
        if self.folder is not None and not newest.state().working:
            return
        self.folder = newest.folder
        self._reset()

    def _reset(self) -> None:
        """Drop everything that was read."""
        self._reader, self._run, self._turn = None, None, 0
        for cache in (self._stamps, self._sets, self._rows, self._problems):
            cache.clear()
        self._log, self._spectra, self._results = (), (), ()

    def _read(self, run: Run, look_back: float) -> None:
        if self._reader is not None and self._reader.replaced:
            self._reset()
        self._take(run.folder / runs.NAME, lambda _: self._read_state(run))
        fresh = self._turn == 0 or (self._reader is None and self._run is not None)
        if self._reader is None and (self._run or segments(run.folder)):
            reader = EventReader(run.folder)
            reader.open()
            self._reader = reader
        elif self._reader is not None:
            self._reader.follow()
            self._reader.look_back(look_back)
        self._take(run.log, self._read_log)
        self._turn += 1
        if fresh or self._turn % RESULTS_EVERY == 0:
            self._read_results(run)

    def _read_results(self, run: Run) -> None:
        """Read what changes rarely: spectra and scores."""
        spectra = [run.spectra, *self._covariances()]
        if any([self._take(p, self._read_spectra) for p in spectra]):
            self._spectra = distinct(self._sets[p] for p in spectra if p in self._sets)
        scores = score_files(run.folder)
        if any([self._take(p, self._read_scores) for p in scores]):
            rows = [r for p in scores for r in self._rows.get(p, [])]
            self._results = tuple({(r.suite, r.label, r.dimension): r for r in rows}.values())

    def _read_state(self, run: Run) -> None:
        self._run = run.state()

    def _read_log(self, path: Path) -> None:
        self._log = tail_lines(path, LOG_LINES)

    def _read_spectra(self, path: Path) -> None:
        self._sets[path] = read_spectra(path)

    def _read_scores(self, path: Path) -> None:
        self._rows[path] = read_summaries(path)

    def _take(self, path: Path, read: Callable[[Path], None]) -> bool:
        """Read a file if it changed; returns whether. One that cannot be read is a problem until it can."""
        if not path.exists():
            self._problems.pop(path, None)
        if not self._changed(path):
            return False
        try:
            read(path)
        except (KoreError, OSError) as error:
            self._problems[path] = str(error)
        except (TypeError, ValueError, AttributeError):
            self._problems[path] = f"{path}: not as this version of KORE writes it"
        else:
            self._problems.pop(path, None)
            return True
        self._stamps.pop(str(path), None)
        return False

    def _covariances(self) -> list[Path]:
        """Spectra of the covariances that the run uses."""
        if self._run is None:
            return []
        folders = [Path(value["path"]) for value in self._run.inputs.values() if "path" in value]
        own = (self.folder or Path()) / SPECTRA
        return [p / SPECTRA for p in folders if p / SPECTRA != own]

    def _changed(self, path: Path) -> bool:
        try:
            stat = path.stat()
        except OSError:
            return False
        stamp = stat.st_mtime_ns + stat.st_size
        if self._stamps.get(str(path)) == stamp:
            return False
        self._stamps[str(path)] = stamp
        return True

    def _machine(
        self, state: DashboardState, live: Liveness, now: float
    ) -> tuple[tuple[tuple[float, Telemetry], ...], str]:
        """Readings of the last minute: the run's own if it logs them, else read here, else why not."""
        logged = tuple(r for r in state.readings if r[0] >= now - 60)
        if logged:
            return logged, "logged by the run"
        if live.over and state.readings:
            return state.readings, "at the run's end"
        if self._probe is None:
            return (), ""
        if live.over:
            return ((now, Telemetry(why="no readings: the run logged none")),), ""
        if self._run is not None and self._run.host != socket.gethostname():
            return ((now, Telemetry(why=f"no readings from {self._run.host}, another machine")),), ""
        if not self._local or now - self._local[-1][0] >= PROBE_EVERY:
            recent = tuple(r for r in self._local if r[0] >= now - 60)
            # the probe reads the memory of its own process
            memory = self._memory(self._run.pid) if self._run else None
            self._local = (*recent, (now, replace(self._probe.sample(), rss=memory)))
        return self._local, "this machine"


def same(one: Path | None, other: Path | None) -> bool:
    """Whether two paths name one folder."""
    return one is not None and other is not None and one.resolve() == other.resolve()


def tail_lines(path: Path, count: int) -> tuple[str, ...]:
    """The last lines of a text file, reading at most 64 KiB of it."""
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - (64 << 10)))
        lines = stream.read().decode("utf-8", "replace").replace("\r", "\n").split("\n")
    if size > 64 << 10:
        lines = lines[1:]
    return tuple(line for line in lines if line.strip())[-count:]
