"""What each method allows, as one table: for docs/methods.md, and the source of every refusal."""

from __future__ import annotations

from typing import Any

from kore.methods.registry import METHODS, method_class


def overview() -> list[dict[str, Any]]:
    """One row per method: what it needs, ZeRO stages, mergeable, exportable, resumable, why not."""
    rows = []
    for name in METHODS:
        traits = method_class(name).traits
        rows.append(
            {
                "method": name,
                "needs": ", ".join(
                    n
                    for n, asked in (("covariance", traits.needs_factors), ("old samples", traits.needs_old))
                    if asked
                ),
                "zero": ", ".join(map(str, traits.zero)),
                "mergeable": traits.mergeable,
                "exportable": traits.exportable,
                "resumable": traits.resumable,
                "why": traits.why,
            }
        )
    return rows


def markdown() -> list[str]:
    """The table in Markdown."""
    titles = ["method", "needs", "ZeRO stages", "mergeable", "PEFT folder", "exact resume", "why not"]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for row in overview():
        cells = [
            f"`{row['method']}`",
            row["needs"] or "-",
            row["zero"],
            *("yes" if row[key] else "no" for key in ("mergeable", "exportable", "resumable")),
            row["why"] or "-",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines
