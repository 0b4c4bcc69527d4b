"""A run folder: its state (run.json), its lock, and where runs live.

Readers (the dashboard) need nothing but this folder; see docs/architecture.md for its layout.
"""

from __future__ import annotations

import os
import shlex
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import platformdirs

from kore.artifacts.manifest import locked, versions
from kore.artifacts.model_folder import CONFIG
from kore.errors import DataError, MissingArtefact, UsageError
from kore.io.files import hash_bytes, read_json, write_json

NAME = "run.json"
SPECTRA = "spectra.json"  # in a run and in a covariance
ADAPTER, FACTS = "adapter_config.json", "kore.json"  # in an adapter: PEFT's own, and ours
Status = Literal["starting", "running", "finished", "failed", "interrupted"]
LATEST = 1e11  # a time that the calendar still knows


def home() -> Path:
    """Where runs live: ``$KORE_HOME``, else ``./runs``."""
    return Path(os.environ.get("KORE_HOME") or "runs")


def cache_home() -> Path:
    """Where replies, searches and images of the data are kept: ``$KORE_CACHE``, else the user's cache
    folder."""
    given = os.environ.get("KORE_CACHE")
    return Path(given) if given else Path(platformdirs.user_cache_dir("kore"))


def data_root() -> Path:
    """Where benchmarks and data sets lie by default: ``$KORE_DATA``, else ``$LMUData``, else ``~/LMUData``
    if it is there, else the user's data folder."""
    for variable in ("KORE_DATA", "LMUData"):
        if named := os.environ.get(variable):
            return Path(named)
    shared = Path.home() / "LMUData"
    if shared.is_dir():
        return shared
    from platformdirs import user_data_path

    return user_data_path("kore")


@dataclass(frozen=True)
class RunState:
    """What run.json holds: who works on the run and how far it is.

    Attributes:
        command: the arguments that made it, so that the resume line can be printed.
        profile: the resolved profile, value by value.
        inputs: name -> {path, hash}, so that a reader finds the tree, covariance and model.
        result: numbers to show when it is finished.
    """

    status: Status
    method: str
    command: list[str]
    profile: dict[str, Any]
    inputs: dict[str, dict[str, str]] = field(default_factory=dict)
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)
    boot: str = field(default_factory=lambda: boot_id())
    started: float = field(default_factory=time.time)
    ended: float | None = None
    message: str | None = None
    fingerprint: str | None = None
    made_by: dict[str, str] = field(default_factory=versions)
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def again(self) -> str | None:
        """The command line that goes on with it; None where nothing says which."""
        if not self.command:
            return None
        first, *words = self.command
        words = words if Path(first).name == "kore" else self.command
        return shlex.join(["kore", *(word for word in words if word != "--restart")])

    @property
    def alive(self) -> bool | None:
        """Whether the process still runs; None when it ran on another host, or where no boot is told.

        What ran before a reboot is dead. The boot is the kernel's, so containers of one machine share it;
        two machines that share a folder must not share a host name too, or each takes the other's runs
        for dead.
        """
        here = boot_id()
        if self.host != socket.gethostname() or (self.boot != here and not (self.boot and here)):
            return None
        return self.boot == here and process_alive(self.pid)

    @property
    def working(self) -> bool:
        """Whether it says of itself that it is at work; `dead` tells whether that can be."""
        return self.status in ("starting", "running")

    @property
    def dead(self) -> bool:
        """Whether it says that it is at work, but its process is gone."""
        return self.working and self.alive is False

    @property
    def sound(self) -> bool:
        """Whether every field is of its type, so that readers need not ask again."""
        return (
            self.status in get_args(Status)
            and _texts([self.method, self.host, self.boot])
            and all(text is None or isinstance(text, str) for text in (self.message, self.fingerprint))
            and isinstance(self.command, list)
            and _texts(self.command)
            and all(isinstance(d, dict) for d in (self.profile, self.inputs, self.made_by, self.result))
            and all(isinstance(told, dict) and _texts(told.values()) for told in self.inputs.values())
            and isinstance(self.pid, int)
            and 0 < self.pid < 1 << 31  # what the system can number
            and _is_time(self.started)
            and (self.ended is None or _is_time(self.ended))
        )


def _texts(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 <= value < LATEST


def title_of(folder: str | Path) -> str:
    """What a run, adapter or model is called: its folder; ``NAME/run`` where ``kore inject`` made it."""
    path = Path(folder)
    path = path if path.name else path.absolute()
    return f"{path.parent.name}/{path.name}" if path.name == "run" and path.parent.name else path.name


def boot_id() -> str:
    """Identifies this boot of this machine, so that a recycled pid is not taken for a live run."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def process_alive(pid: int) -> bool:
    """Whether a process of that number runs here (a zombie does not)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return True


@dataclass(frozen=True)
class Run:
    """A run folder and the names of what lies in it."""

    folder: Path

    @property
    def adapter(self) -> Path:
        """The finished adapter: a PEFT folder with kore.json."""
        return self.folder / "adapter"

    @property
    def checkpoints(self) -> Path:
        """Trainer checkpoints, resumed from only by this run itself."""
        return self.folder / "checkpoints"

    @property
    def evals(self) -> Path:
        """One folder per evaluation of this run."""
        return self.folder / "eval"

    @property
    def log(self) -> Path:
        """Free text that the stages printed."""
        return self.folder / "log.txt"

    @property
    def spectra(self) -> Path:
        """Eigenvalue curves for the dashboard."""
        return self.folder / SPECTRA

    def state(self) -> RunState:
        """Read run.json.

        Raises:
            MissingArtefact: there is no run here.
            DataError: something else is, or a field is not of its type.
        """
        path = self.folder / NAME
        if not path.exists():
            raise MissingArtefact(
                f"no run here: {self.folder}", hint="start one with: kore train or kore demo"
            )
        value = read_json(path)
        try:
            state = RunState(**value)
        except TypeError as error:
            raise DataError("not a run of this version of KORE", where=str(path)) from error
        if not state.sound:
            raise DataError("not a run of this version of KORE", where=str(path))
        return state

    def write(self, state: RunState) -> None:
        """Replace run.json atomically."""
        write_json(self.folder / NAME, asdict(state))

    def update(self, **changes: Any) -> RunState:
        """Change some fields of run.json."""
        state = replace(self.state(), **changes)
        self.write(state)
        return state

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process; see `kore.artifacts.manifest.locked`."""
        with locked(self.folder, hint=f"watch it with: kore dashboard {self.folder}"):
            yield


def run_at(folder: Path) -> Run | None:
    """The run in a folder, or in the folder that ``kore inject`` made around one."""
    return next((Run(p) for p in (folder, folder / "run") if (p / NAME).is_file()), None)


def locate(name: str | Path) -> Path:
    """The path that a name means: itself, or the name under the runs folder where only that exists."""
    path = Path(name)
    return home() / name if not path.exists() and (home() / name).exists() else path


def runs_in(folder: Path) -> list[Run]:
    """The run of a folder (see `run_at`), else the runs of the folders in it, by name.

    An adapter or a model is no collection of runs, whatever else lies in its folder.
    """
    if (run := run_at(folder)) is not None:
        return [run]
    if not folder.is_dir() or any((folder / name).is_file() for name in (ADAPTER, CONFIG)):
        return []
    return [run for path in sorted(folder.iterdir()) if (run := run_at(path)) is not None]


def only_run(folder: Path) -> Run | None:
    """The run of a folder, or the only one in it.

    Raises:
        UsageError: the folder holds several runs.
    """
    runs = runs_in(folder)
    if len(runs) > 1:
        names = [str(run.folder) for run in runs]
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        raise UsageError(f"{folder} holds {len(names)} runs", hint=f"name one: {', '.join(names[:8])}{more}")
    return runs[0] if runs else None


def run_named(name: str | Path) -> Run | None:
    """The run that a path, or a name under the runs folder, means; see `only_run`."""
    return only_run(locate(name))


def leave_pointer(run: Run) -> None:
    """Make a run that lives elsewhere known under the runs folder, so that 'newest' finds it."""
    base = home()
    if run.folder.resolve().parent == base.resolve():
        return
    folder = str(run.folder.resolve())
    # two runs of one name in different places must not hide each other
    write_json(base / f"{run.folder.name}-{hash_bytes(folder.encode())[:6]}.run", {"folder": folder})


def all_runs() -> list[Run]:
    """Every run under the runs folder or pointed to from it, newest first."""
    base = home()
    if not base.is_dir():
        return []
    folders = [p.parent for p in base.glob(f"**/{NAME}")]
    for pointer in base.glob("*.run"):
        try:
            folders.append(Path(read_json(pointer)["folder"]))
        except (DataError, KeyError, TypeError):
            continue
    found = {f.resolve(): Run(f) for f in folders}
    changed = {run: when for run in found.values() if (when := _changed(run)) is not None}
    return sorted(changed, key=changed.__getitem__, reverse=True)


def _changed(run: Run) -> float | None:
    try:
        return (run.folder / NAME).stat().st_mtime
    except OSError:  # discarded, or on a disk that is not there now
        return None
