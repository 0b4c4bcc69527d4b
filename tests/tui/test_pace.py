"""How often the dashboard looks: as seldom as it has to, so that it takes no more than its share."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kore_cli.dashboard import app
from kore_cli.dashboard.app import KoreApp
from kore_cli.dashboard.watching_app import MAX_WAIT, MIN_WAIT, Pace


@pytest.mark.parametrize(("cost", "wait"), [(0.05, MAX_WAIT), (0.004, 0.8), (0.0001, MIN_WAIT)])
def test_looks_take_their_share_of_a_core_or_come_at_their_seldomest(
    monkeypatch: pytest.MonkeyPatch, cost: float, wait: float
) -> None:
    cpu, wall = [0.0], [0.0]
    monkeypatch.setattr(app.time, "process_time", lambda: cpu[0])
    monkeypatch.setattr(app.time, "monotonic", lambda: wall[0])
    pace = Pace(0.005)
    for _ in range(200):
        waited = pace.wait()
        cpu[0] += cost
        wall[0] += waited
    assert waited == pytest.approx(wait, rel=0.3)


@pytest.mark.parametrize(("own", "other"), [(None, 0.5), (0.5, None), (0.5, 0.5)])
def test_there_are_four_looks_a_second_while_the_past_of_any_run_is_read(
    own: float | None, other: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Source:
        def __init__(self, history: float | None, seconds: float) -> None:
            self.folder, self._history, self._seconds = Path("r"), history, seconds

        def poll(self, *, look_back: float) -> Any:
            now[0] += self._seconds
            return SimpleNamespace(folder=self.folder, history=self._history, state=None, spectra=())

    now, begun = [0.0], []
    monkeypatch.setattr(app.time, "monotonic", lambda: now[0])
    seen = KoreApp(Source(own, 0.2 if own else 0.0), (Source(other, 0.1 if other else 0.0),))  # type: ignore[arg-type]

    def wait(seconds: float) -> None:
        begun.append(now[0] + seconds)
        now[0] += seconds
        if len(begun) == 9:
            seen._stop.set()

    seen._wake = SimpleNamespace(wait=wait, clear=lambda: None)  # type: ignore[assignment]
    monkeypatch.setattr(seen, "post_message", lambda message: True)
    seen._watch()
    gaps = [b - a for a, b in pairwise(begun[1:])]
    assert min(gaps) >= 0.25 - 1e-9 and max(gaps) <= 0.4
