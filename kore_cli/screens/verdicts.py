"""Counts of adapted, kept and forgotten probe questions, and a sign for each verdict."""

from __future__ import annotations

from textual.content import Content

from kore_cli.dashboard.store import DashboardState, Verdict
from kore_cli.widgets.formatting import bar

SIGNS: dict[Verdict, tuple[str, str]] = {
    "adapted": ("✔", "$success"),
    "known before": ("◆", "$foreground 70%"),
    "kept": ("●", "$success"),
    "gained": ("+", "$success"),
    "not yet": ("○", "$foreground 55%"),
    "forgotten": ("✖", "$error"),
    "unknown": ("·", "$foreground 40%"),
}


def counts(state: DashboardState, width: int, *, one_line: bool = False, step: int | None = None) -> Content:
    """The counts, live."""
    if not state.probes:
        return Content.styled("no probe questions yet", "$foreground 45%")
    tally = state.tally(step)
    if one_line:
        parts = [
            ("probes ", "$foreground 55%"),
            (f"{tally.adapted}/{tally.new}", "bold"),
            (" adapted  ", "$foreground 55%"),
            (f"{tally.kept}/{tally.old}", "bold"),
            (" kept", "$foreground 55%"),
        ]
        if tally.forgotten:
            parts.append((f"  {tally.forgotten} lost", "$error bold"))
        return Content.assemble(*parts)
    rows = [
        _share("adapted", tally.adapted, tally.new, "$primary", width),
        _share("kept", tally.kept, tally.old, "$success", width),
    ]
    if not tally.old:
        rows[1] = Content.styled("no old questions", "$foreground 55%")
    known = f"{tally.known} known before" if tally.known else ""
    forgotten = f"{tally.forgotten or 'nothing'} forgotten" if tally.old else ""
    line = ", ".join(filter(None, (forgotten, known)))
    if len(line) > width:
        line = forgotten if tally.forgotten else known
    if line:
        rows.append(Content.styled(line, "$error bold" if tally.forgotten else "$foreground 55%"))
    return Content("\n").join(rows)


def _share(name: str, count: int, total: int, tone: str, width: int) -> Content:
    value = f"{count}/{total}"
    filled, empty = bar(count / total if total else None, max(4, width - 10 - len(value)))
    return Content.assemble(
        (f"{name:<8} ", "$foreground 55%"), (filled, tone), (empty, "$foreground 20%"), " ", (value, "bold")
    )
