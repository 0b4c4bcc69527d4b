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


def score_row(row: Mapping[str, Any], base: Mapping[str, Any] | None) -> dict[str, Any]:
    """A method's scores by name. Differences from the base of a point or more count as gains or losses."""
    named: dict[str, Any] = {}
    for key, name in SCORES.items():
        value, reference = row.get(key), base.get(key) if base and base is not row else None
        change = None if value is None or reference is None else value - reference
        named[name] = Figure(value, change if change is not None and abs(change) >= 1 else None)
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


def print_summary(output: Output, summary: Mapping[str, Any]) -> None:
    """An evaluation for people: scores by method, scores by suite, verdicts on items."""
    from kore.evaluation.report import item_words, suite_rows

    score_table(output, summary["table"])
    output.line("")
    base = {row["suite"]: row["score"] for row in suite_rows(summary) if row["model"] == BASE}
    rows = []
    for row in suite_rows(summary):
        score, reference = row["score"], base.get(row["suite"])
        compared = row["model"] != BASE and score is not None and reference is not None
        change = score - reference if compared else None
        rows.append({**row, "score": Figure(score, change if change and abs(change) >= 1 else None)})
    output.table(rows, ("suite", "model", "score", "figure", "samples", "missing", "notes"))
    for line in item_words(summary):
        output.line(line)
