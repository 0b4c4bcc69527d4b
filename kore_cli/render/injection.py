"""The result of an injection: the table, answers side by side, the next commands."""

from __future__ import annotations

from kore.workflows.result import Outcome
from kore_cli.output import Output
from kore_cli.render.scores import print_present, score_row

MOST_ITEMS = 30  # items that are listed one by one
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
    if outcome.verdicts:
        _print_verdicts(output, outcome)
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


def _print_verdicts(output: Output, outcome: Outcome) -> None:
    """Print how each item fared, those with a wrong answer first, and what would teach them."""
    output.line("")
    order = ("not taught", "not", "partly", "not asked", "learned")
    shown = sorted(outcome.verdicts, key=lambda one: order.index(one.verdict))[:MOST_ITEMS]
    rows: list[dict[str, str]] = []
    for one in shown:
        row = {"item": one.title, "verdict": one.verdict}
        if one.failed:
            first, more = one.failed[0], len(one.failed) - 1
            row["failed question"] = first.question + f" (and {more} more)" * (more > 0)
            row |= {"expected": first.expected, "answer": first.given}
        rows.append(row)
    columns = ["item", "verdict", "failed question", "expected", "answer"]
    output.table(rows, columns if any("expected" in row for row in rows) else columns[:2])
    if rest := len(outcome.verdicts) - len(shown):
        output.line(f"and {rest} more: --json lists all")
    for text in outcome.left_out[:MOST_ITEMS]:
        output.line(text)
    output.line(f"\n{outcome.headline}")
    if outcome.advice:
        output.line(f"{outcome.advice.reason}:\n  {outcome.advice.command}")
