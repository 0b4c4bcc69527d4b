"""Checkpoints of one run: sealed with the sums of their files, found again, thinned out.

The trainer's own files in them are torch files, so only a checkpoint whose seal this very run wrote, and
whose sums match, is ever read back.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kore.errors import DataError, UsageError
from kore.io.files import hash_file, read_json, write_json

_LOG = logging.getLogger("kore.training")
SEAL = "seal.json"
PREFIX = "checkpoint-"


@dataclass(frozen=True)
class Seal:
    """What makes a checkpoint whole.

    Attributes:
        step: optimiser steps done.
        fingerprint: of data, settings, method and base; another one is another run.
        settings: what the fingerprint is made of, so that a difference can be named.
        files: name -> sum.
        score: the probes' scores at this step, if they were asked.
        world: processes that wrote it.
    """

    step: int
    fingerprint: str
    settings: dict[str, Any]
    files: dict[str, str] = field(default_factory=dict)
    score: dict[str, float] = field(default_factory=dict)
    world: int = 1


def seal(folder: Path, value: Seal) -> None:
    """Sum up every file of a checkpoint; from now on it counts."""
    files = {
        str(p.relative_to(folder)): hash_file(p)
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != SEAL
    }
    write_json(folder / SEAL, {**asdict(value), "files": files})


def read_seal(folder: Path) -> Seal | None:
    """The seal, or None when it is missing, broken, or does not match the files."""
    if not (folder / SEAL).is_file():
        return None
    try:
        value = Seal(**read_json(folder / SEAL))
    except (DataError, TypeError):
        return None
    for name, expected in value.files.items():
        path = folder / name
        if not path.is_file() or hash_file(path) != expected:
            return None
    return value


def steps(folder: Path) -> list[tuple[int, Path]]:
    """Checkpoint folders with their steps, newest first, sealed or not."""
    found = []
    for path in folder.glob(f"{PREFIX}*"):
        number = path.name.removeprefix(PREFIX)
        if number.isdigit() and path.is_dir():
            found.append((int(number), path))
    return sorted(found, reverse=True)


@dataclass
class Checkpoints:
    """The checkpoints found in a folder, each verified at most once: they may hold gigabytes."""

    folder: Path
    _verified: dict[Path, Seal | None] = field(default_factory=dict)

    def seal(self, path: Path) -> Seal | None:
        """As `read_seal`."""
        if path not in self._verified:
            self._verified[path] = read_seal(path)
        return self._verified[path]

    def scored(self) -> list[tuple[Path, Seal]]:
        """Whole checkpoints with probe scores, oldest first."""
        found = [(path, self.seal(path)) for _, path in reversed(steps(self.folder))]
        return [(path, seal) for path, seal in found if seal and seal.score]


def newest(found: Checkpoints, fingerprint: str, settings: dict[str, Any]) -> tuple[Path, Seal] | None:
    """The newest whole checkpoint of this run, or None.

    Raises:
        UsageError: the whole ones there belong to a run with other settings or data.
    """
    folder = found.folder
    for _, path in steps(folder):
        value = found.seal(path)
        if value is None:
            if (path / SEAL).is_file():
                _LOG.warning("%s is damaged: the checkpoint before it is used", path)
            continue
        if value.fingerprint != fingerprint:
            names = sorted(
                k for k in value.settings.keys() | settings.keys() if value.settings.get(k) != settings.get(k)
            )
            changed = "; ".join(f"{k}: {value.settings.get(k)} -> {settings.get(k)}" for k in names[:4])
            raise UsageError(
                f"{folder} holds checkpoints of other settings ({changed or 'another method state'})",
                hint="choose another folder with -o, or discard it with --restart",
            )
        return path, value
    return None


def thin(folder: Path, keep: Sequence[Path], last: int = 2) -> None:
    """Delete all but the newest `last` and those in `keep`."""
    kept = {p.resolve() for p in keep}
    for _, path in steps(folder)[last:]:
        if path.resolve() not in kept:
            shutil.rmtree(path, ignore_errors=True)


def clear(folder: Path, *, keep: int | None) -> None:
    """Delete what a run that starts now does not need: checkpoints beyond step `keep`; None: all of them."""
    if keep is not None:
        discard_after(folder, keep)
    elif folder.exists():
        shutil.rmtree(folder)


def discard_after(folder: Path, step: int) -> None:
    """Delete what lies beyond `step`, and what was left unsealed."""
    for number, path in steps(folder):
        if number > step or not (path / SEAL).is_file():
            shutil.rmtree(path, ignore_errors=True)
