"""A study's rows as tables: means and spreads over seeds, gains of specific constraints."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

FIGURES = ("cem", "f1", "k_a", "k_r", "k_r_near", "avg", "hars")
NESTED = ("by_dimension", "by_suite", "by_type_cem", "by_type_f1")
CURVE = ("area", "k_r_at")
PARTS = {
    "methods": "Methods (the paper's table 1)",
    "ablation": "Ablations",
    "ranks": "Ranks",
    "augmentation": "Augmentations, with plain LoRA and no constraint (table 6)",
    "specific": "Covariance of one suite alone (table 3 and figure 6)",
}
Curves = Mapping[str, Mapping[int, Mapping[str, float | None]]]


def summary(rows: Sequence[Mapping[str, Any]], curves: Curves) -> list[dict[str, Any]]:
    """One row per label: means over seeds, and the spread (standard deviation, ``NAME_sd``) of several.

    Args:
        curves: label -> seed -> area under its curve and K.R at equal K.A.
    """
    made = []
    for label in dict.fromkeys(r["label"] for r in rows):
        mine = [r for r in rows if r["label"] == label]
        first = mine[0]
        value: dict[str, Any] = {k: first.get(k) for k in ("label", "params", "lr", "steps", "compared")}
        value["seeds"] = len(mine)
        for name in FIGURES:
            value[name], value[f"{name}_sd"] = _mean_and_spread(r.get(name) for r in mine)
        for name in NESTED:
            keys = dict.fromkeys(k for r in mine for k in r.get(name, {}))
            found = {k: _mean_and_spread(r.get(name, {}).get(k) for r in mine) for k in keys}
            value[name] = {k: mean for k, (mean, _) in found.items()}
            value[f"{name}_sd"] = {k: spread for k, (_, spread) in found.items()}
        curve = list(curves.get(label, {}).values())
        for name in CURVE:
            value[name], value[f"{name}_sd"] = _mean_and_spread(c.get(name) for c in curve)
        made.append(value)
    return made


def _mean_and_spread(values: Iterable[float | None]) -> tuple[float | None, float | None]:
    numbers = [v for v in values if v is not None]
    mean = statistics.fmean(numbers) if numbers else None
    return mean, statistics.stdev(numbers) if len(numbers) > 1 else None


def gains(table: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each constraint made for one suite gains on it, and on the mean of the others.

    Args:
        table: of part specific; the row that is made for no suite is the one to compare with.

    Returns:
        Rows ``{label, compared, own, others, by_suite}`` in points above that row.
    """
    general = next((r["by_suite"] for r in table if not r.get("compared")), None)
    if general is None:
        return []
    made = []
    for row in table:
        if not row.get("compared"):
            continue
        both = {n: (v, general.get(n)) for n, v in row["by_suite"].items()}
        more = {n: v - g for n, (v, g) in both.items() if v is not None and g is not None}
        others = [v for n, v in more.items() if n != row["compared"]]
        made.append(
            {
                "label": row["label"],
                "compared": row["compared"],
                "own": more.get(row["compared"]),
                "others": statistics.fmean(others) if others else None,
                "by_suite": more,
            }
        )
    return made


def flat(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A row with the entries of one of its nested figures as columns, spreads beside them."""
    spreads = {f"{n}_sd": v for n, v in row.get(f"{key}_sd", {}).items()}
    return {**row, **row.get(key, {}), **spreads}


def names_in(table: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    """The columns of a nested figure, in order of appearance."""
    return list(dict.fromkeys(n for row in table for n in row.get(key, {})))
