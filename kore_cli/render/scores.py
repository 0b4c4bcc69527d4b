"""Scores by the names that every table, screen and document uses, coloured against the base's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from kore_cli.output import Figure, Output

# JSON key -> name
SCORES = MappingProxyType(
    {
        "cem": "CEM",
        "f1": "F1",
        "k_a": "K.A",
        "k_r": "K.R",
        "k_r_near": "near",
        "avg": "Avg",
        "hars": "HARS",
    }
)
BASE = "base"


def compared(value: float | None, reference: float | None) -> Figure:
    """A score; a difference of a point or more from the reference is a gain or a loss."""
    change = 0.0 if value is None or reference is None else value - reference
    return Figure(value, change if abs(change) >= 1 else None)


def score_row(row: Mapping[str, Any], base: Mapping[str, Any] | None) -> dict[str, Any]:
    """A method's scores by name, compared with the base's."""
    against: Mapping[str, Any] = base or {}
    named: dict[str, Any] = {name: compared(row.get(k), against.get(k)) for k, name in SCORES.items()}
    if row.get("loss_rise") is not None:
        rise = row["loss_rise"]
        named["old-text loss"] = Figure(rise, -rise if abs(rise) >= 0.05 else None, signed=True)
    if row.get("of"):
        named["K.R over"] = f"{row['suites']} of {row['of']} suites"
    return named


def score_table(output: Output, rows: Sequence[Mapping[str, Any]]) -> None:
    """K.A, K.R and the others, one line a method; columns without any value are left out."""
    base = next((row for row in rows if row.get("method") == BASE), None)
    named = [{"method": row.get("method"), **score_row(row, base)} for row in rows]
    print_present(output, named)


def print_present(output: Output, rows: Sequence[Mapping[str, Any]], title: str = "") -> None:
    """A table of the columns that have any value."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    output.table(rows, [c for c in columns if any(_present(row.get(c)) for row in rows)], title=title)


def _present(value: object) -> bool:
    return value is not None and not (isinstance(value, Figure) and value.value is None)


def difference_rows(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a comparison; a difference counts as a gain or loss where its interval excludes 0."""
    return [
        {
            **row,
            "difference": Figure(row["difference"], row["difference"] if row["clear"] else None, signed=True),
        }
        for row in rows
    ]
