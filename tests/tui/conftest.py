"""Runs for the screens: the same every time, whatever the clock, the host and the folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from kore.artifacts.run import RunState
from kore.telemetry import Telemetry
from kore_cli.dashboard.app import KoreApp
from kore_cli.dashboard.watcher import RunSource
from tests.benchmark import script

NOW = 1_800_000_000.0


class FakeProbe:
    """A machine that always answers the same."""

    def __init__(self, reading: Telemetry) -> None:
        self.reading = reading

    def sample(self) -> Telemetry:
        """The reading."""
        return self.reading

    def close(self) -> None:
        """Nothing to let go of."""


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    """benchmarks/synthetic_run.py."""
    return script("synthetic_run")


@pytest.fixture(autouse=True)
def steady(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """UTC, a folder of its own to work in, one host name."""
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("NO_COLOR", raising=False)
    time.tzset()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("socket.gethostname", lambda: "node1")


@pytest.fixture
def make_run(synthetic: ModuleType) -> Callable[..., Path]:
    """Writes a run folder ``run`` in the working folder."""

    def make(steps: int = 200, **options: object) -> Path:
        folder = Path(str(options.pop("name", "run")))
        synthetic.write_run(folder, steps, **{"now": NOW, "pid": 4242, **options})
        return folder

    return make


@pytest.fixture
def open_app() -> Callable[..., KoreApp]:
    """An app that reads when told to, with a clock and processes of our own."""

    def make(
        folder: Path | None = Path("run"),
        *,
        alive: bool | None = True,
        now: float = NOW,
        probe: FakeProbe | None = None,
        others: tuple[Path, ...] = (),
        **options: object,
    ) -> KoreApp:
        def life(run: RunState) -> bool | None:
            return alive if run.working else False

        def source(path: Path | None) -> RunSource:
            return RunSource(
                path, clock=lambda: now, alive=life, probe=probe, memory=lambda pid: {4242: 2 << 30}.get(pid)
            )

        return KoreApp(
            source(folder),
            tuple(source(o) for o in others),
            new_source=source,
            live=False,
            **options,  # type: ignore[arg-type]
        )

    return make
