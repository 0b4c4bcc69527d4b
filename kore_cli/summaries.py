"""Evaluation results as rows for a table, from whatever eval/<name>/summary.json holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kore.files import read_json
from kore_cli.state import EvalRow, number


def read_summaries(path: Path) -> list[EvalRow]:
    """The scores of one summary.

    Raises:
        DataError: not readable as JSON.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        return []
    label = str(value.get("label") or value.get("method") or path.parent.name)
    return list(_rows(value, label))


def _rows(value: Mapping[str, Any], label: str) -> list[EvalRow]:
    rows: list[EvalRow] = []
    suites = value.get("suites") or value.get("results") or {}
    named = (
        suites.items()
        if isinstance(suites, dict)
        else [(s.get("suite"), s) for s in suites if isinstance(s, dict)]
    )
    for suite, result in named:
        if not isinstance(result, dict):
            score = number(result)
            if score is not None:
                rows.append(EvalRow(str(suite), label, "", "", score, None, None, None))
            continue
        metric = str(result.get("metric", ""))
        count = number(result.get("n"))
        rows.append(_row(str(suite), label, "", metric, result, count))
        for dimension, part in (result.get("dimensions") or {}).items():
            inner = part if isinstance(part, dict) else {"score": part}
            rows.append(_row(str(suite), label, str(dimension), metric, inner, number(inner.get("n"))))
    return rows


def _row(
    suite: str, label: str, dimension: str, metric: str, raw: Mapping[str, Any], n: float | None
) -> EvalRow:
    count = None if n is None else int(n)
    return EvalRow(suite, label, dimension, metric, number(raw.get("score")), count, count, count)
