"""An evaluation for people: scores by method and by suite, verdicts on items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kore_cli.output import Output
from kore_cli.render.scores import BASE, compared, score_table


def print_summary(output: Output, summary: Mapping[str, Any]) -> None:
    """An evaluation for people: scores by method, scores by suite, verdicts on items."""
    from kore.evaluation.report import SUITE_COLUMNS, item_words, suite_rows, table_notes

    score_table(output, summary["table"])
    output.line("")
    suites = suite_rows(summary)
    base = {row["suite"]: row["score"] for row in suites if row["model"] == BASE}
    rows = [{**row, "score": compared(row["score"], base.get(row["suite"]))} for row in suites]
    output.table(rows, SUITE_COLUMNS)
    for line in [*item_words(summary), *table_notes(summary)]:
        output.line(line)
