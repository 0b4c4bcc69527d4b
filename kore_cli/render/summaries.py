"""Evaluation results as rows for a table: an evaluation's summary.json, or one model's scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kore.io.files import read_json
from kore_cli.dashboard.store import EvalRow, number
from kore_cli.render.scores import SCORES

OVERALL = "overall"


def score_files(run: Path) -> list[Path]:
    """The score files of a run: its own evaluations, and those of a demo or study around it."""
    folders = [run / "eval", run.parent / "eval"]
    return [
        path
        for folder in folders
        for pattern in ("scores/*.json", "*/scores/*.json", "summary.json", "*/summary.json")
        for path in sorted(folder.glob(pattern))
    ]


def read_summaries(path: Path) -> list[EvalRow]:
    """The scores in one file.

    Raises:
        DataError: not readable as JSON.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        return []
    suites = value.get("suites") or {}
    if not isinstance(suites, dict):
        return []
    if "table" not in value:
        label = str(value.get("label") or path.stem)
        return [row for name, raw in suites.items() for row in _suite(str(name), label, raw)]
    rows = list(_overall(value["table"]))
    for name, suite in suites.items():
        results = suite.get("results") if isinstance(suite, dict) else None
        for label, raw in (results or {}).items():
            rows += _suite(str(name), str(label), raw)
    return rows


def _overall(table: object) -> Iterator[EvalRow]:
    for raw in table if isinstance(table, list) else ():
        label = str(raw.get("method", "?"))
        for key, name in SCORES.items():
            score = number(raw.get(key))
            if score is not None:
                metric = "K.R: mean over the suites that both models were scored on"
                yield EvalRow(OVERALL, label, name, metric, score, None, None, None)


def _suite(name: str, label: str, raw: object) -> Iterator[EvalRow]:
    if not isinstance(raw, Mapping):
        return
    metric = str(raw.get("headline_name") or "")
    role = {"adaptation": "new knowledge", "retention": "old knowledge"}.get(str(raw.get("role")), "")
    about = " · ".join(p for p in (metric, str(raw.get("dimension") or ""), role) if p)
    counts: Mapping[str, Any] = raw.get("counts") or {}
    total = number(counts.get("samples"))
    n = None if total is None else int(total)
    yield EvalRow(name, label, "", about, number(raw.get("headline")), n, n, n)
    for key, value in (raw.get("metrics") or {}).items():
        if str(key).startswith("type."):
            yield EvalRow(name, label, str(key).removeprefix("type."), about, number(value), None, None, None)
