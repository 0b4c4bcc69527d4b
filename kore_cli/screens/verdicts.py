"""How many probe questions were adapted, kept and forgotten, and the signs for each."""

from __future__ import annotations

from textual.content import Content

from kore_cli.dashboard.store import DashboardState, Verdict
from kore_cli.widgets.formatting import bar

SIGNS: dict[Verdict, tuple[str, str]] = {
    "adapted": ("✔", "$success"),
    "kept": ("●", "$success"),
    "gained": ("+", "$success"),
    "not yet": ("○", "$foreground 55%"),
    "forgotten": ("✖", "$error"),
    "unknown": ("·", "$foreground 40%"),
}


def counts(state: DashboardState, width: int, *, one_line: bool = False, step: int | None = None) -> Content:
    """Adapted, kept and forgotten, live."""
    if not state.probes:
        return Content.styled("no probe questions yet", "$foreground 45%")
    adapted, new, kept, old = state.tally(step)
    if one_line:
        parts = [
            ("probes ", "$foreground 55%"),
            (f"{adapted}/{new}", "bold"),
            (" new  ", "$foreground 55%"),
            (f"{kept}/{old}", "bold"),
            (" kept", "$foreground 55%"),
        ]
        if old > kept:
            parts.append((f"  {old - kept} lost", "$error bold"))
        return Content.assemble(*parts)
    rows = [_share("adapted", adapted, new, "$primary", width), _share("kept", kept, old, "$success", width)]
    lost = old - kept
    if not old:
        rows[1] = Content.styled("nothing old is asked", "$foreground 55%")
    elif lost:
        rows.append(Content.styled(f"{lost} forgotten", "$error bold"))
    else:
        rows.append(Content.styled("nothing forgotten", "$foreground 55%"))
    return Content("\n").join(rows)


def _share(name: str, count: int, total: int, tone: str, width: int) -> Content:
    value = f"{count}/{total}"
    filled, empty = bar(count / total if total else None, max(4, width - 10 - len(value)))
    return Content.assemble(
        (f"{name:<8} ", "$foreground 55%"), (filled, tone), (empty, "$foreground 20%"), " ", (value, "bold")
    )
