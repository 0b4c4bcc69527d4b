"""The Results screen: evaluation scores as they arrive, each method against the base."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import ClassVar

from textual.binding import BindingType
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from kore_cli.dashboard.store import EvalRow
from kore_cli.dashboard.watcher import Snapshot
from kore_cli.render.summaries import OVERALL
from kore_cli.screens.parts import Box
from kore_cli.screens.view import View
from kore_cli.widgets.formatting import bar, fit, padded
from kore_cli.widgets.keys import RESULTS, bindings

BASE = "base"
NARROW = 60


class ResultsScreen(View):
    """A block per suite: a bar for the base, one per tuned model, and the difference."""

    NAME = "results"
    FILTERS = "suites and dimensions"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings(RESULTS)]

    def __init__(self) -> None:
        super().__init__()
        self._dimensions = True

    def body(self) -> Iterable[Widget]:
        """One scrolling text."""
        yield Box(Static(id="table"), id="results")
        yield Static(id="nothing", markup=False)

    def depends(self, snapshot: Snapshot) -> object:
        """The scores alone."""
        return snapshot.folder, snapshot.results, snapshot.state.evals

    def show(self, snapshot: Snapshot) -> None:
        """Write the table."""
        rows = all_scores(snapshot)
        box = self.query_one("#results")
        box.border_title = "results"
        box.border_subtitle = "higher is better · ▲▼ against the base"
        nothing = self.query_one("#nothing", Static)
        filter_text = self.filter_text
        shown = [r for r in rows if filter_text in f"{r.suite} {r.dimension} {r.label}".lower()]
        box.display, nothing.display = bool(shown), not shown
        if rows and not shown:
            nothing.update(self.no_match)
            return
        if not rows:
            run = shlex.quote(str(snapshot.folder)) if snapshot.folder else "RUN"
            nothing.update(f"no results yet: kore eval {run} writes them, and so does kore demo")
            return
        width = max(30, box.content_size.width - 1)
        self.query_one("#table", Static).update(score_text(shown, width, dimensions=self._dimensions))

    def action_dimensions(self) -> None:
        """Show or hide the dimensions of each suite."""
        self._dimensions = not self._dimensions
        self.fill()

    def table(self) -> tuple[list[str], list[list[object]]]:
        """The scores."""
        rows = all_scores(self.kore.shown) if self.kore.shown else []
        return ["suite", "dimension", "label", "metric", "score", "n"], [
            [r.suite, r.dimension, r.label, r.metric, r.score, r.n] for r in rows
        ]


def all_scores(snapshot: Snapshot) -> list[EvalRow]:
    """The scores of finished summaries, and those of events that no summary has."""
    rows = {(r.suite, r.label, r.dimension): r for r in snapshot.results}
    rows.update({k: r for k, r in snapshot.state.evals.items() if k not in rows})
    return list(rows.values())


def score_text(rows: list[EvalRow], width: int, *, dimensions: bool) -> Content:
    """The table as text of `width` columns."""
    suites: dict[str, dict[str, list[EvalRow]]] = {}
    for row in sorted(rows, key=lambda r: (r.suite != OVERALL, "new knowledge" not in r.metric)):
        suites.setdefault(row.suite, {}).setdefault(row.dimension, []).append(row)
    lines: list[Content] = []
    for suite, groups in suites.items():
        metric = next((r.metric for g in groups.values() for r in g if r.metric), "")
        counts = sorted({r.n for r in groups.get("", []) if r.n})
        about = " · ".join([metric, *(f"{n:,} questions" for n in counts)]).strip(" ·")
        lines.append(Content.assemble((suite, "bold $accent"), "  ", (about, "$foreground 50%")))
        for dimension, group in sorted(groups.items(), key=lambda kv: kv[0] != ""):
            if dimension and not dimensions and suite != OVERALL:
                continue
            lines += _group(dimension, group, width)
        lines.append(Content(""))
    return Content("\n").join(lines)


def _group(dimension: str, group: list[EvalRow], width: int) -> list[Content]:
    group = sorted(group, key=lambda r: r.label != BASE)
    base = next((r.score for r in group if r.label == BASE), None)
    label = f"  {dimension}" if dimension else "all"
    # in a narrow table names stand above the bars
    narrow = width < NARROW
    name_width = 9 if narrow else min(28, width // 3)
    out = [Content(fit(label.strip(), width))] if narrow and dimension else []
    for position, row in enumerate(group):
        head = label if position == 0 and not narrow else ""
        tone = (
            "$foreground 40%"
            if row.label == BASE
            else _tone(0.0 if row.score is None or base is None else row.score - base)
        )
        room = max(8, width - name_width - (16 if narrow else 26))
        filled, empty = bar(None if row.score is None else row.score / 100, room)
        if row.score is None:
            value, change = f"{row.done or 0}/{row.total or '?'}", Content("")
        else:
            value, change = f"{row.score:6.1f}", _change(row, base)
        running = row.score is not None and row.total and row.done is not None and row.done < row.total
        if running:
            change = Content.styled(f" {row.done}/{row.total}", "$foreground 50%")
        parts = [
            (padded(head, name_width - 9), "bold" if not dimension else ""),
            (padded(row.label, 8) + " ", "$foreground 60%"),
            (filled, tone),
            (empty, "$foreground 15%"),
            (f" {value:>7}", "bold"),
        ]
        out.append(Content.assemble(*parts, change))
    return out


def _tone(change: float) -> str:
    """The colour of a change in points; less than one point is neutral."""
    return "$foreground 70%" if abs(change) < 1 else "$success" if change > 0 else "$error"


def _change(row: EvalRow, base: float | None) -> Content:
    if row.label == BASE or base is None or row.score is None:
        return Content("")
    change = row.score - base
    if abs(change) < 0.05:
        return Content.styled("  =", "$foreground 50%")
    return Content.styled(f" {'▲' if change > 0 else '▼'}{abs(change):5.1f}", _tone(change))
