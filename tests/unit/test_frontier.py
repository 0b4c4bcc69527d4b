"""Areas and retention at equal adaptation, against values worked out by hand."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from kore.evaluation.frontier import area, pareto, retention_at
from tests.benchmark import script

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


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """benchmarks/frontier.py."""
    return script("frontier")


def made(
    method: str, rate: float, validation: tuple[float, float], test: tuple[float, float]
) -> dict[str, Any]:
    """A row with one figure for all old suites of a split."""
    from kore.evaluation.demo_suites import FAR, NEAR

    row: dict[str, Any] = {"method": method, "rate": rate, "seed": 0}
    for split, (k_a, k_r) in (("validation", validation), ("test", test)):
        row[split] = {"new countries": k_a, **dict.fromkeys((*FAR, *NEAR), k_r)}
    return row


def test_rates_are_chosen_on_validation_and_gates_told_of_the_test_split(benchmark: ModuleType) -> None:
    rows = [
        made("base", 0.0, (5, 80), (5, 80)),
        made("kore", 0.01, (20, 79), (30, 79)),
        made("kore", 0.02, (40, 76), (40, 72)),  # just 95 % on validation
        made("kore", 0.04, (60, 75.9), (60, 79)),  # more is learned, but not kept there
        made("kore-contrast", 0.01, (50, 78), (50, 78)),
        made("lora", 0.001, (10, 70), (20, 70)),
        made("lora", 0.002, (35, 60), (50, 50)),  # nearest to KORE's 40
        made("lora-raw", 0.001, (12, 60), (12, 60)),
    ]
    found = benchmark.summarise(rows, [0])
    assert found["chosen"] == {"kore": 0.02, "kore-contrast": 0.01, "lora": 0.002, "lora-raw": 0.001}
    area_above, share, above_lora, kept = found["gates"].values()
    assert area_above is True
    assert share == [pytest.approx(40 / 50)]
    assert above_lora == [pytest.approx(72 - (70 + (50 - 70) * (40 - 20) / 30))]
    assert kept == [pytest.approx(72 / 80)]
    assert found["contrast"]["K.R as a share of the base's"] == [pytest.approx(78 / 80)]
    rows[4] = made("kore-contrast", 0.01, (50, 78), (1, 1))
    rows[1:4] = [made("kore", 0.01, (20, 79), (6, 79))]
    assert benchmark.summarise(rows, [0])["gates"]["area above both in every seed"] is False
