"""Watches a run folder and tells what changed: newest events first, the long past in the background.

Knows no Textual; `RunSource.poll` is called by a thread of the app (or once, for a snapshot).
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kore import run as runs
from kore.errors import DataError, KoreError
from kore.events import segments
from kore.run import Run, RunState
from kore.telemetry import Probe, Telemetry
from kore_cli.curve import Curve
from kore_cli.liveness import Liveness, judge
from kore_cli.spectra import NAME as SPECTRA
from kore_cli.spectra import SpectrumSet, distinct, read_spectra
from kore_cli.state import DashboardState, EvalRow, Phase, reduce
from kore_cli.summaries import found, read_summaries

TAIL = 2 << 20
PIECE = 1 << 20
LOG_LINES = 200
PROBE_EVERY = 2.0
NEWEST_EVERY = 2.0
SELDOM = 4
HEAD = 64


@dataclass(frozen=True)
class Snapshot:
    """All that the screens show, at one moment.

    Attributes:
        history: share of the older events read so far; None when all are.
        readings: (time, machine) pairs of the last minute. source: where they come from, in words.
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


@dataclass
class EventReader:
    """Events of a run folder: the newest at once, the older ones piece by piece.

    Attributes:
        state: what is known so far; after a fast open it lacks the past until `history` is None.
    """

    folder: Path
    tail: int = TAIL
    state: DashboardState = field(default_factory=DashboardState)
    bad_lines: int = 0
    _offsets: dict[str, int] = field(default_factory=dict)
    _known: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    _past: DashboardState = field(default_factory=DashboardState)
    _todo: list[tuple[Path, int, int]] = field(default_factory=list)
    _todo_bytes: int = 0
    _seen: int = 0
    _recent: DashboardState = field(default_factory=DashboardState)

    @property
    def history(self) -> float | None:
        """Share of the past that has been read, None when nothing is left."""
        if not self._todo:
            return None
        left = sum(stop - start for _, start, stop in self._todo)
        return 1 - left / max(1, self._todo_bytes)

    def open(self) -> None:
        """Read the newest events; what lies before them is left for `look_back`."""
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
        """Whether what was read is no longer there: a run was started anew in the same folder."""
        return any(self._is_other(self.folder / name, *known) for name, known in self._known.items())

    def _is_other(self, path: Path, inode: int, head: bytes) -> bool:
        try:
            stat = path.stat()
            # the number of a file that was removed may be given to the next one
            other = stat.st_ino != inode or not _head(path).startswith(head)
        except FileNotFoundError:
            return True
        return other or stat.st_size < self._offsets.get(path.name, 0)

    def follow(self) -> bool:
        """Read what was appended; returns whether anything was."""
        batch: list[dict[str, Any]] = []
        for path in segments(self.folder):
            if len(self._known.get(path.name, (0, b""))[1]) < HEAD:
                self._known[path.name] = (path.stat().st_ino, _head(path))
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
        """Spend up to `seconds` on the past; returns whether anything was read."""
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
        if self._todo:
            self.state = joined(self._past, self._recent)
        else:
            self.state = joined(self._past, self._recent)
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
                # one line longer than a piece: take it whole
                data += stream.readline()
                whole = len(data) if data.endswith(b"\n") else 0
        return list(self._parse(data[:whole], past)), start + whole

    def _parse(self, data: bytes, past: bool) -> Iterator[dict[str, Any]]:
        for line in data.split(b"\n"):
            if not line or (past and (b'"kind": "gpu"' in line or b'"kind": "heartbeat"' in line)):
                # old readings of the machine say nothing about now
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
    """The first bytes of a file, which tell the time at which it was begun."""
    with path.open("rb") as stream:
        return stream.read(HEAD)


def joined(past: DashboardState, recent: DashboardState) -> DashboardState:
    """One state from an older part and a newer one."""
    names = past.curves.keys() | recent.curves.keys()
    curves = {n: past.curves.get(n, Curve()).joined(recent.curves.get(n, Curve())) for n in names}
    probes = dict(past.probes)
    for key, probe in recent.probes.items():
        old = probes.get(key)
        if old:
            first = probe.history[0].step if probe.history else float("inf")
            before = tuple(h for h in old.history if h.step < first)
            probe = replace(
                probe,
                history=(*before, *probe.history),
                base=probe.base or old.base,
                base_right=probe.base_right if probe.base_right is not None else old.base_right,
            )
        probes[key] = probe
    if not recent.recent:  # no step: it may hold nothing but answers or readings
        recent = replace(recent, step=past.step, recent=past.recent, nonfinite=past.nonfinite)
    return replace(
        recent,
        events=past.events + recent.events,
        odd=past.odd + recent.odd,
        now={**past.now, **recent.now},
        phase=past.phase if recent.phase == Phase() else recent.phase,
        epoch=past.epoch if recent.epoch is None else recent.epoch,
        eta_s=past.eta_s if recent.eta_s is None else recent.eta_s,
        step_seconds=past.step_seconds if recent.step_seconds is None else recent.step_seconds,
        held_out=recent.held_out or past.held_out,
        first_t=past.first_t if past.first_t is not None else recent.first_t,
        curves=curves,
        steps=recent.steps or past.steps,
        marks=(*past.marks, *recent.marks)[-400:],
        story=(*past.story, *recent.story)[-200:],
        warnings=(*past.warnings, *recent.warnings)[-200:],
        checkpoint=recent.checkpoint or past.checkpoint,
        best=recent.best or past.best,
        probes=probes,
        evals={**past.evals, **recent.evals},
    )


def memory_of(pid: int) -> int | None:
    """The bytes that a process holds; None if it is gone or cannot be asked."""
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
        folder: the run to watch, there already or not; None for the newest that appears.
        probe: asked about the machine when the run's process is on this host; None asks nobody.
        clock: Unix time, replaced in tests.
        complaint: asked for what else went wrong (a child process that ended badly).
        memory: bytes that a process of this host holds.
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
        """Look at the folder once.

        Args:
            look_back: seconds to spend on older events, if some are unread.
        """
        now = self._clock()
        if self._newest and now >= self._look_at:
            with contextlib.suppress(KoreError, OSError):
                self._turn_to_newest(now)
        if self.folder is not None:
            try:
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

    def _turn_to_newest(self, now: float) -> None:
        """Take up the newest run; leave the present one only when it is over and another works."""
        self._look_at = now + NEWEST_EVERY
        working = self._run is not None and self._run.status in ("starting", "running")
        over = not working or (self._run is not None and self._alive(self._run) is False)
        found = runs.all_runs()
        if not found or not over or found[0].folder == self.folder:
            return
        if self.folder is not None and found[0].state().status not in ("starting", "running"):
            return
        self.folder = found[0].folder
        self._start_anew()

    def _start_anew(self) -> None:
        """Forget everything that was read."""
        self._reader, self._run, self._turn = None, None, 0
        for kept in (self._stamps, self._sets, self._rows, self._problems):
            kept.clear()
        self._log, self._spectra, self._results = (), (), ()

    def _read(self, run: Run, look_back: float) -> None:
        if self._reader is not None and self._reader.replaced:
            self._start_anew()
        self._take(run.folder / runs.NAME, lambda _: self._read_state(run))
        fresh = self._turn == 0 or (self._reader is None and self._run is not None)
        if self._reader is None and (self._run or segments(run.folder)):
            self._reader = EventReader(run.folder)
            self._reader.open()
        elif self._reader is not None:
            self._reader.follow()
            self._reader.look_back(look_back)
        self._take(run.log, self._read_log)
        self._turn += 1
        if fresh or self._turn % SELDOM == 0:
            self._read_results(run)

    def _read_results(self, run: Run) -> None:
        """What changes seldom: spectra and scores."""
        spectra = [run.spectra, *self._covariances()]
        if any([self._take(p, self._read_spectra) for p in spectra]):
            self._spectra = distinct(self._sets[p] for p in spectra if p in self._sets)
        scores = found(run.folder)
        if any([self._take(p, self._read_scores) for p in scores]):
            told = [r for p in scores for r in self._rows.get(p, [])]
            self._results = tuple({(r.suite, r.label, r.dimension): r for r in told}.values())

    def _read_state(self, run: Run) -> None:
        state = run.state()
        if not (isinstance(state.inputs, dict) and isinstance(state.started, (int, float))):
            raise DataError("not a run of this version of KORE", where=str(run.folder / runs.NAME))
        self._run = state

    def _read_log(self, path: Path) -> None:
        self._log = tail_lines(path, LOG_LINES)

    def _read_spectra(self, path: Path) -> None:
        self._sets[path] = read_spectra(path)

    def _read_scores(self, path: Path) -> None:
        self._rows[path] = read_summaries(path)

    def _take(self, path: Path, read: Callable[[Path], None]) -> bool:
        """Read a file that changed; one that cannot be read is told until it can. Whether it was read."""
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
        """Spectra of the covariances that the run was made with."""
        if self._run is None:
            return []
        folders = [
            Path(v["path"])
            for v in self._run.inputs.values()
            if isinstance(v, dict) and isinstance(v.get("path"), str)
        ]
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
        """Readings of the last minute: the run's own if it tells them, else asked here."""
        told = tuple(r for r in state.readings if r[0] >= now - 60)
        if told:
            return told, "told by the run"
        if live.over and state.readings:
            return state.readings, "as the run left it"
        here = self._run is None or self._run.host == socket.gethostname()
        if self._probe is None or live.over or not here:
            return (), ""
        if not self._local or now - self._local[-1][0] >= PROBE_EVERY:
            kept = tuple(r for r in self._local if r[0] >= now - 60)
            # what is asked tells of its own process at best
            held = self._memory(self._run.pid) if self._run else None
            self._local = (*kept, (now, replace(self._probe.sample(), rss=held)))
        return self._local, "this machine"


def same(one: Path | None, other: Path | None) -> bool:
    """Whether two spellings mean one folder."""
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
