"""Short answers: OCRVQA by equality after trimming and lower case; anyone's own by the same rule."""

from __future__ import annotations

from kore.evaluation.metrics import measure
from kore.evaluation.scorers.scorer_context import ScorerContext, grouped, mean
from kore.evaluation.types import Scored


def ocrvqa(context: ScorerContext) -> Scored:
    """Share of rows whose prediction equals any key, in percent; overall, by split or by category."""
    verdicts = []
    for row in context.rows:
        keys, said = row.accepted_answers, context.prediction(row)
        hit = said is not None and any(key.strip().lower() == said.strip().lower() for key in keys)
        covered = measure(said, keys).cem_clean
        verdicts.append(
            context.verdict(row, " | ".join(keys), float(hit), "equal" if hit else "not equal", cem=covered)
        )
    values = [v.score or 0.0 for v in verdicts]
    metrics = {"Overall": 100 * mean(values)}
    column = "split" if any("split" in row.cells for row in context.rows) else "category"
    metrics |= {f"{column}.{k}": 100 * mean(v) for k, v in grouped(context.rows, values, column).items()}
    metrics["cem"] = 100 * mean(v.parts.get("cem") for v in verdicts)
    return context.scored(metrics["Overall"], "accuracy", metrics, verdicts)
