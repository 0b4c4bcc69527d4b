"""Areas and retention at equal adaptation, against values worked out by hand."""

from __future__ import annotations

import pytest

from kore.evaluate.frontier import area, pareto, retention_at

CURVE = [(0.0, 100.0), (50.0, 90.0), (40.0, 80.0), (80.0, 50.0)]


def test_dominated_points_do_not_count() -> None:
    assert pareto(CURVE) == [(0.0, 100.0), (50.0, 90.0), (80.0, 50.0)]


def test_area_is_the_staircase_under_the_points() -> None:
    assert area(CURVE) == pytest.approx((50 * 90 + 30 * 50) / 100)
    assert area([]) == 0


def test_retention_between_points_is_linear_and_beyond_them_unknown() -> None:
    assert retention_at(CURVE, 65.0) == pytest.approx(70.0)
    assert retention_at(CURVE, 0.0) == 100.0
    assert retention_at(CURVE, 81.0) is None
