"""The dots of a chart's lines: whole lines, nothing outside the window, and never more than it can show."""

from __future__ import annotations

import numpy as np
import pytest

from kore_cli.widgets.chart import dots

SIZE = np.array([20, 12])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ([(0, 3), (5, 3)], [(x, 3) for x in range(6)]),
        ([(4, 0), (4, 5)], [(4, y) for y in range(6)]),
        ([(2, 2), (5, 5)], [(k, k) for k in range(2, 6)]),
        ([(3, 7), (3, 7)], [(3, 7)]),
        ([(0, 0), (3, 0), (3, 2)], [(0, 0), (1, 0), (2, 0), (3, 0), (3, 1), (3, 2)]),
        ([(-1e9, 5), (1e9, 5)], [(x, 5) for x in range(20)]),
        ([(0, 30), (19, 30)], []),
        ([(-5, -5), (-5, 40)], []),
        ([(7, 3)], []),
    ],
)
def test_lines_become_dots(line: list[tuple[float, float]], expected: list[tuple[int, int]]) -> None:
    found = dots(np.array(line, dtype=float), SIZE)
    assert sorted({(int(x), int(y)) for x, y in found}) == sorted(expected)


def test_a_line_has_no_gap_and_stays_inside() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        found = dots(rng.uniform(-30, 50, (2, 2)), SIZE)
        assert ((found >= 0) & (found < SIZE)).all()
        assert (np.abs(np.diff(found, axis=0)) <= 1).all()
        assert len(found) <= SIZE.max() + 3
