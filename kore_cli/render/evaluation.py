"""An evaluation for people: scores by method and by suite, verdicts on items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kore_cli.output import Output
from kore_cli.render.scores import BASE, compared, score_table


def print_summary(output: Output, summary: Mapping[str, Any]) -> None:
    """An evaluation for people: scores by method, scores by suite, verdicts on items."""
    from kore.evaluation.report import item_words, suite_rows

    score_table(output, summary["table"])
    output.line("")
    suites = suite_rows(summary)
    base = {row["suite"]: row["score"] for row in suites if row["model"] == BASE}
    rows = [{**row, "score": compared(row["score"], base.get(row["suite"]))} for row in suites]
    output.table(rows, ("suite", "model", "score", "figure", "samples", "missing", "notes"))
    for line in item_words(summary):
        output.line(line)
