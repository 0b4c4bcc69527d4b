"""Short answers: OCRVQA by equality after trimming and lower case; anyone's own by the same rule."""

from __future__ import annotations

import ast

from kore.evaluation.metrics import measure
from kore.evaluation.rows import Row
from kore.evaluation.scorers.scorer_context import Sheet, grouped, mean
from kore.evaluation.types import Scored


def keys_of(row: Row) -> list[str]:
    """The accepted answers: a list literal's texts, or the cell itself."""
    cell = row.get("answer")
    try:
        value = ast.literal_eval(cell.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return [cell]
    return [str(part) for part in value] if isinstance(value, list) else [cell]


def ocrvqa(sheet: Sheet) -> Scored:
    """Share of rows whose prediction equals any key, in percent; overall, by split or by category."""
    verdicts = []
    for row in sheet.rows:
        keys, said = keys_of(row), sheet.said(row)
        hit = said is not None and any(key.strip().lower() == said.strip().lower() for key in keys)
        covered = measure(said, keys).cem_clean
        verdicts.append(
            sheet.verdict(row, " | ".join(keys), float(hit), "equal" if hit else "not equal", cem=covered)
        )
    values = [v.score or 0.0 for v in verdicts]
    metrics = {"Overall": 100 * mean(values)}
    column = "split" if any("split" in row.cells for row in sheet.rows) else "category"
    metrics |= {f"{column}.{k}": 100 * mean(v) for k, v in grouped(sheet.rows, values, column).items()}
    metrics["cem"] = 100 * mean(v.parts.get("cem") for v in verdicts)
    return sheet.scored(metrics["Overall"], "accuracy", metrics, verdicts)
