"""How an injection's outcome is shown: the table, answers side by side, what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kore.workflows.result import Outcome
    from kore_cli.output import Output

MOST_ITEMS = 30  # items that are listed one by one
_NAMES = {
    "base": "base (untouched)",
    "before": "before this batch",
    "lora-raw": "LoRA, raw items",
    "lora": "LoRA, augmented",
    "kore": "KORE",
}


def print_outcome(output: Output, outcome: Outcome) -> None:
    """Print the outcome: one JSON object when piped or asked for, else a table and its story."""
    if not output.human:
        output.record(outcome.to_json())
        return
    from kore.evaluation.report import k_r_words

    rows = [
        {
            "method": _NAMES.get(row["method"], row["method"]),
            "trained": row.get("params"),
            "CEM": row.get("cem"),
            "F1": row.get("f1"),
            "K.A": row["k_a"],
            "earlier": row.get("k_a_earlier"),
            "K.R": row["k_r"] if row.get("suites") == row.get("of") else k_r_words(row),
            "near": row.get("k_r_near"),
            "Avg": row.get("avg"),
            "HARS": row.get("hars"),
        }
        for row in outcome.table
    ]
    columns = [c for c in rows[0] if any(row[c] is not None for row in rows)]
    output.line("")
    output.table(rows, columns)
    output.line(f"\n{outcome.legend}")
    if outcome.verdicts:
        _print_verdicts(output, outcome)
    if len(outcome.retention) > 1:
        output.line("")
        output.table(
            [{"method": _NAMES.get(r["method"], r["method"]), **r["per_suite"]} for r in outcome.table],
            ["method", *outcome.retention],
            title="Each old suite",
        )
    if outcome.answers:
        output.line("")
        shown = list(dict.fromkeys(key for answer in outcome.answers for key in answer["answers"]))
        output.table(
            [
                {
                    "about": answer["about"],
                    "question": answer["question"],
                    "right answer": answer["right"],
                    **{_NAMES.get(k, k): answer["answers"].get(k) for k in shown},
                }
                for answer in outcome.answers
            ],
            ["about", "question", "right answer", *(_NAMES.get(k, k) for k in shown)],
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
