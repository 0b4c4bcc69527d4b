"""A folder's manifest: what made it, from which inputs, with which settings; and what to do with it now.

Every stage claims its output folder through `claimed`, so all of them resume, skip and refuse alike, and no
two processes work in one folder.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import IO, Any, Literal

from kore.errors import DataError, MissingArtefact, UsageError
from kore.io.files import hash_json, is_leftover, read_json, write_json

NAME = "manifest.json"
LOCK = ".lock"
_EVENTS = re.compile(r"events-[0-9]+\.jsonl")
State = Literal["fresh", "resume", "done"]

_PACKAGES = ("torch", "transformers", "peft", "safetensors", "deepspeed", "openai")


def versions() -> dict[str, str]:
    """Versions of KORE and of what its results depend on, without importing any of it."""
    found = {}
    for name in ("kore-inject", *_PACKAGES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` holds.

    Attributes:
        kind: tree, covariance, adapter, run, eval, study, export.
        settings: everything that, if changed, would change the output.
        inputs: name -> content hash.
        sources: name -> path, so that a reader of the folder finds its inputs.
        status: partial or done.
        facts: whatever else the stage wants to tell (counts, timings); not part of the fingerprint.
    """

    kind: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    sources: dict[str, str] = field(default_factory=dict)
    status: Literal["partial", "done"] = "partial"
    facts: dict[str, Any] = field(default_factory=dict)
    made: float = field(default_factory=time.time)
    made_by: dict[str, str] = field(default_factory=versions)

    @property
    def fingerprint(self) -> str:
        """Hash of kind, settings and inputs: equal fingerprints mean interchangeable outputs."""
        return hash_json([self.kind, self.settings, self.inputs])

    def write(self, folder: Path) -> None:
        """Write ``manifest.json`` into `folder`, atomically."""
        value = {**self.__dict__, "fingerprint": self.fingerprint}
        write_json(folder / NAME, value)

    def finished(self, **facts: Any) -> Manifest:
        """The same manifest, done, with `facts` added."""
        return Manifest(**{**self.__dict__, "status": "done", "facts": {**self.facts, **facts}})


def read_manifest(folder: Path, *, kind: str | None = None, made_by: str | None = None) -> Manifest:
    """Read a folder's manifest.

    Args:
        kind: refuse any other kind.
        made_by: the command to name when there is none.

    Raises:
        MissingArtefact: no such folder or no manifest in it.
        DataError: of another kind, or unreadable.
    """
    path = folder / NAME
    if not path.exists():
        hint = f"make it with: {made_by}" if made_by else None
        raise MissingArtefact(f"no {kind or 'artefact'} here: {folder}", hint=hint)
    manifest = _parse(read_json(path))
    if manifest is None:
        raise DataError("not a KORE manifest", where=str(path))
    if kind and manifest.kind != kind:
        raise DataError(f"this is a {manifest.kind} folder, expected {kind}", where=str(folder))
    return manifest


def _parse(value: object) -> Manifest | None:
    """The manifest, or None where the JSON is of something else's."""
    if not isinstance(value, dict):
        return None
    try:
        manifest = Manifest(**{k: v for k, v in value.items() if k != "fingerprint"})
    except TypeError:
        return None
    dicts = (manifest.settings, manifest.inputs, manifest.sources, manifest.facts)
    fits = isinstance(manifest.kind, str) and manifest.status in ("partial", "done")
    return manifest if fits and all(isinstance(d, dict) for d in dicts) else None


def claim(folder: Path, manifest: Manifest, *, restart: bool = False) -> State:
    """Decide what a stage does with its output folder, and write the manifest if it is to work.

    Returns:
        fresh: nothing was there (or `restart` discarded it); resume: a part with the same
        fingerprint is there; done: the finished output with the same fingerprint is there.

    Raises:
        UsageError: the folder holds output made with other settings or inputs (names them).
        DataError: the folder holds something that KORE did not make, or another kind of artefact;
            `restart` discards neither.
    """
    old = _there(folder, manifest.kind)
    if old is not None:
        if restart:
            discard(folder)
        else:
            different = differences(old, manifest)
            if different:
                raise UsageError(
                    f"{folder} was made with other settings: {_shortened(different)}",
                    hint="choose another folder with -o, or discard it with --restart",
                )
            return "done" if old.status == "done" else "resume"
    manifest.write(folder)
    return "fresh"


@contextmanager
def claimed(
    folder: Path, manifest: Manifest, *, restart: bool = False, always: bool = False
) -> Iterator[State]:
    """`claim`, with the folder held for this process while it works there.

    Args:
        always: hold a finished folder too, because more is to be done in it; else it is only read.

    Raises:
        DataError, UsageError: see `claim` and `locked`.
    """
    old = _there(folder, manifest.kind)
    if old is not None and old.status == "done" and not (restart or always or differences(old, manifest)):
        yield "done"
        return
    with locked(folder):
        yield claim(folder, manifest, restart=restart)


@contextmanager
def locked(folder: Path, *, hint: str = "wait for it, or choose another folder with -o") -> Iterator[None]:
    """Hold a folder for this process; the kernel drops the lock of a process that died.

    Args:
        hint: what to do where another process holds it.

    Raises:
        DataError: another live process holds it, or the place cannot be written to or locked.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while (stream := _locked(path, hint)) is None:
            pass
    except OSError as error:
        raise DataError(
            f"cannot write {folder}: {error.strerror}", hint="choose another place with -o"
        ) from error
    with stream:
        stream.truncate(0)
        stream.write(f"{os.getpid()} on {socket.gethostname()}")
        stream.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _locked(path: Path, hint: str) -> IO[str] | None:
    """The lock file, locked; None where its last holder removed it meanwhile."""
    stream = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(stream.fileno()), path.stat()):
            return stream
    except FileNotFoundError:
        pass
    except BlockingIOError as error:
        stream.seek(0)
        holder = stream.read().strip() or "?"
        stream.close()
        raise DataError(f"{path.parent} is in use by process {holder}", hint=hint) from error
    except OSError as error:
        stream.close()
        raise DataError(
            f"cannot lock {path.parent}: {error.strerror}", hint="choose a local disk with -o"
        ) from error
    stream.close()
    return None


def _there(folder: Path, kind: str) -> Manifest | None:
    """The manifest of what lies in the folder; None where nothing does.

    Raises:
        DataError: the folder holds something that KORE did not make, or another kind of artefact.
    """
    if (folder / NAME).exists():
        old = read_manifest(folder)
        if old.kind != kind:
            raise DataError(f"{folder} already holds: {old.kind}", hint="choose another folder with -o")
        return old
    if folder.exists():
        if not folder.is_dir():
            raise DataError(f"{folder} is a file, not a folder", hint="choose another folder with -o")
        if any(not _is_ours(path, kind) for path in folder.iterdir()):
            raise DataError(
                f"{folder} is not empty and has no manifest", hint="choose another folder with -o"
            )
    return None


def refuse_input_as_output(out: Path, inputs: Iterable[Path]) -> None:
    """Refuse to write where one of the inputs lies: a restart would discard it.

    Raises:
        UsageError: `out` is one of `inputs`, or holds one.
    """
    place = out.resolve()
    for folder in inputs:
        if folder.resolve().is_relative_to(place):
            raise UsageError(
                f"{out} is or holds what is read: {folder}", hint="choose another folder with -o"
            )


def discard(folder: Path) -> None:
    """Empty the folder, the manifest last: a kill in between leaves something that can be discarded.

    The lock file stays, because this process may be holding it.
    """
    for path in sorted(folder.iterdir(), key=lambda p: p.name == NAME):
        if path.name == LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _is_ours(path: Path, kind: str) -> bool:
    """What may lie in a folder before its manifest does: the lock, what a killed write left; and, of a run,
    what it tells of the stages before its training."""
    told = path.name == "run.json" or _EVENTS.fullmatch(path.name)
    if kind == "run" and told and (path.parent / "run.json").is_file():
        return True
    return path.name == LOCK or is_leftover(path)


def _shortened(names: list[str], most: int = 4) -> str:
    more = len(names) - most
    return "; ".join(names[:most]) + (f"; and {more} more" if more > 0 else "")


def differences(old: Manifest, new: Manifest) -> list[str]:
    """Settings and inputs that differ, each as ``name: old -> new``."""
    before = {**_flat(old.settings), **{f"input {k}": v for k, v in old.inputs.items()}}
    after = {**_flat(new.settings), **{f"input {k}": v for k, v in new.inputs.items()}}
    names = sorted(before.keys() | after.keys())
    return [
        f"{name}: {before.get(name, '(none)')} -> {after.get(name, '(none)')}"
        for name in names
        if before.get(name) != after.get(name)
    ]


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if isinstance(inner, dict):
            flat.update(_flat(inner, f"{name}."))
        else:
            flat[name] = inner
    return flat
