"""The result of an injection: the table, answers side by side, the next commands."""

from __future__ import annotations

from kore.workflows.result import Outcome
from kore_cli.output import Output
from kore_cli.render.scores import print_present, score_row

_NAMES = {
    "base": "base (untouched)",
    "before": "before this batch",
    "lora-raw": "LoRA, raw items",
    "lora": "LoRA, augmented",
    "kore": "KORE",
}


def print_outcome(output: Output, outcome: Outcome) -> None:
    """Print the result: one JSON object with --json or in a pipe, else tables."""
    if not output.human:
        output.record(outcome.to_json())
        return
    base = outcome.table[0]
    rows = [
        {
            "method": _NAMES.get(row["method"], row["method"]),
            "trained": row.get("params"),
            **score_row(row, base),
            "earlier": row.get("k_a_earlier"),
        }
        for row in outcome.table
    ]
    output.line("")
    print_present(output, rows)
    output.line(f"\n{outcome.legend}")
    if len(outcome.retention) > 1:
        output.line("")
        output.table(
            [{"method": _NAMES.get(r["method"], r["method"]), **r["per_suite"]} for r in outcome.table],
            ["method", *outcome.retention],
            title="K.R by suite",
        )
    if outcome.answers:
        output.line("")
        methods = list(dict.fromkeys(key for answer in outcome.answers for key in answer["answers"]))
        output.table(
            [
                {
                    "about": answer["about"],
                    "question": answer["question"],
                    "expected": answer["right"],
                    **{_NAMES.get(k, k): answer["answers"].get(k) for k in methods},
                }
                for answer in outcome.answers
            ],
            ["about", "question", "expected", *(_NAMES.get(k, k) for k in methods)],
        )
    if outcome.next:
        output.line("\nNext:")
        for command in outcome.next:
            output.line(f"  {command}")
