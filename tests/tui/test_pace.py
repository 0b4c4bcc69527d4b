"""How often the dashboard looks: as seldom as it has to, so that it takes no more than its share."""

from __future__ import annotations

import pytest

from kore_cli import app
from kore_cli.app import REDRAW, SELDOMEST, Pace


@pytest.mark.parametrize(("cost", "wait"), [(0.05, SELDOMEST), (0.004, 0.8), (0.0001, REDRAW)])
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
