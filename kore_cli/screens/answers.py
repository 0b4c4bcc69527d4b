"""The Answers screen: probe questions, the base's answer beside the injected model's, over time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from kore_cli.dashboard.store import DashboardState, ProbeView, Tuned
from kore_cli.dashboard.watcher import Snapshot
from kore_cli.screens.parts import Box
from kore_cli.screens.verdicts import SIGNS
from kore_cli.screens.view import View
from kore_cli.widgets.formatting import fit
from kore_cli.widgets.image import Picture
from kore_cli.widgets.keys import ANSWERS, bindings
from kore_cli.widgets.word_diff import marked


class AnswersScreen(View):
    """The model's answers before and after."""

    NAME = "answers"
    FILTERS = "questions, answers, or: adapted known kept forgotten"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings(ANSWERS)]

    def __init__(self) -> None:
        super().__init__()
        self._probe: str | None = None
        self._step: int | None = None
        self._listed: object = None
        self._folder: Path | None = None

    def body(self) -> Iterable[Widget]:
        """Questions to the left; picture, two answers and their history to the right."""
        answers = Horizontal(
            Static(id="base", classes="panel"), Static(id="tuned", classes="panel"), id="pair"
        )
        question = Horizontal(Picture(id="picture"), Static(id="question"), id="about-row")
        history = Box(Static(id="history"), id="history-box", classes="panel")
        yield Static(id="tally")
        yield Horizontal(
            OptionList(id="probes"), Vertical(question, answers, history, id="right"), id="columns"
        )
        yield Static(id="nothing", markup=False)

    def depends(self, snapshot: Snapshot) -> object:
        """The questions and who answers them."""
        return snapshot.folder, snapshot.state.probes, snapshot.run and snapshot.run.method

    def show(self, snapshot: Snapshot) -> None:
        """List the questions, show the chosen one."""
        state = snapshot.state
        if snapshot.folder != self._folder:
            self._folder, self._probe, self._step = snapshot.folder, None, None
        nothing = self.query_one("#nothing", Static)
        nothing.display = not state.probes
        self.query_one("#columns").display = bool(state.probes)
        if not state.probes:
            nothing.update(
                "no probe questions yet: training evaluates them before step 1 and at each checkpoint"
            )
            self.query_one("#tally", Static).update("")
            return
        self._tally(state)
        if not self._visible(state):
            nothing.display, self.query_one("#columns").display = True, False
            nothing.update(self.no_match)
            return
        self._list(state)
        probe = state.probes.get(self._probe or "")
        if probe is not None:
            self._show_probe(probe)

    def _visible(self, state: DashboardState) -> list[ProbeView]:
        filter_text = self.filter_text

        def matches(probe: ProbeView) -> bool:
            tuned = probe.at(self._step)
            parts = (probe.question, probe.expected, probe.base, tuned.answer if tuned else "", probe.kind)
            return filter_text in f"{parts} {probe.verdict(self._step)}".lower()

        return [p for p in state.probes.values() if matches(p)]

    def _list(self, state: DashboardState) -> None:
        probes = self._visible(state)
        options = self.query_one("#probes", OptionList)
        width = max(12, options.content_size.width - 7)
        key = (width, *((p.id, p.verdict(self._step)) for p in probes))
        if self._probe not in [p.id for p in probes]:
            self._probe = probes[0].id if probes else None
        if key == self._listed:
            return
        self._listed = key
        options.border_title = "questions"
        options.border_subtitle = str(len(probes))
        options.clear_options()
        options.add_options([Option(self._row(p, width), id=p.id) for p in probes])
        if self._probe is not None:
            options.highlighted = options.get_option_index(self._probe)

    def _row(self, probe: ProbeView, width: int) -> Content:
        sign, tone = SIGNS[probe.verdict(self._step)]
        label = f"{probe.expected} · {probe.question}" if probe.expected else probe.question
        return Content.assemble(
            (f"{sign} ", f"{tone} bold"), (f"{probe.kind} ", "$foreground 45%"), fit(label, width)
        )

    def _tally(self, state: DashboardState) -> None:
        tally = state.tally(self._step)
        at = "now" if self._step is None else f"at step {self._step:,}"
        if self.has_class("-narrow"):
            short = f"{tally.adapted}/{tally.new} adapted  {tally.kept}/{tally.old} kept"
            short += f"  {tally.forgotten} lost"
            line = Content(f" {short}  {at.removeprefix('at ')}")
            self.query_one("#tally", Static).update(line.truncate(self.size.width, ellipsis=True))
            return
        parts: list[Content | str] = [
            " ",
            Content.assemble((f"{tally.adapted}", "bold $success"), f" of {tally.new} adapted"),
            "   ",
            Content.assemble((f"{tally.kept}", "bold $success"), f" of {tally.old} kept"),
            "   ",
            Content.assemble(
                (f"{tally.forgotten}", "bold $error" if tally.forgotten else "bold"), " forgotten"
            ),
        ]
        if tally.known:
            parts += ["   ", Content.assemble((f"{tally.known}", "bold"), " known before")]
        parts += ["   ", Content.styled(at, "$accent")]
        self.query_one("#tally", Static).update(Content.assemble(*parts))

    def _show_probe(self, probe: ProbeView) -> None:
        self.query_one("#picture", Picture).show(probe.image)
        expected = (
            Content.assemble(("\n\nexpected  ", "$foreground 55%"), (probe.expected, "bold"))
            if probe.expected
            else Content("")
        )
        kind = "new knowledge" if probe.kind == "new" else "old knowledge"
        sign, tone = SIGNS[probe.verdict(self._step)]
        verdict = Content.assemble("\n", (f"{sign} {probe.verdict(self._step)}", f"{tone} bold"))
        self.query_one("#question", Static).update(
            Content.assemble((kind, "$accent"), "\n", (probe.question, "bold"), expected, verdict)
        )
        answer = probe.at(self._step)
        base, tuned = self.query_one("#base", Static), self.query_one("#tuned", Static)
        base.border_title = Content.assemble("base ", _right(probe.base_right))
        base.update(Content(probe.base or "no answer yet"))
        if answer is None:
            tuned.border_title = Content(self._label())
            tuned.update(Content.styled("no answer yet", "$foreground 50%"))
        else:
            step = "" if self.has_class("-narrow") else f", step {answer.step:,}"
            tuned.border_title = Content.assemble(f"{self._label()}{step} ", _right(answer.right))
            tuned.update(marked(probe.base, answer.answer, f"bold {_tone(answer.right)}"))
        self._history(probe)

    def _label(self) -> str:
        run = self.kore.shown.run if self.kore.shown else None
        return run.method.upper() if run else "tuned"

    def _history(self, probe: ProbeView) -> None:
        box = self.query_one("#history-box")
        box.border_title = "every checkpoint, newest first"
        box.border_subtitle = "changed words marked · [ ] walk"
        chosen = probe.at(self._step)
        rows = []
        before: Tuned | None = None
        for entry in probe.history:
            text = marked(before.answer if before else probe.base, entry.answer, "bold $accent")
            pointer = "▶" if entry is chosen else " "
            rows.append(
                Content.assemble(
                    (f"{pointer} ", "$accent bold"),
                    (f"{entry.step:>8,} ", "$foreground 55%"),
                    _right(entry.right),
                    " ",
                    text,
                )
            )
            before = entry
        rows.append(
            Content.assemble(
                "  ", (f"{'base':>8} ", "$foreground 55%"), _right(probe.base_right), " ", probe.base
            )
        )
        newest_first = [*reversed(rows[:-1]), rows[-1]]
        self.query_one("#history", Static).update(Content("\n").join(newest_first))

    @on(OptionList.OptionHighlighted, "#probes")
    def _chosen(self, event: OptionList.OptionHighlighted) -> None:
        if event.option.id and event.option.id != self._probe:
            self._probe = event.option.id
            self.fill()

    def _steps(self) -> list[int]:
        state = self.kore.shown.state if self.kore.shown else None
        return sorted({h.step for p in state.probes.values() for h in p.history}) if state else []

    def _walk(self, by: int) -> None:
        steps = self._steps()
        if not steps:
            return
        at = len(steps) - 1 if self._step is None else max(0, sum(s <= self._step for s in steps) - 1)
        to = at + by
        self._step = None if to >= len(steps) - 1 else steps[max(0, to)]
        self.fill()

    def action_earlier(self) -> None:
        """Go to the checkpoint before."""
        self._walk(-1)

    def action_later(self) -> None:
        """Go to the checkpoint after; past the last one, follow the run again."""
        self._walk(1)

    def action_next_change(self) -> None:
        """Go to the next question whose answer differs from the base's."""
        state = self.kore.shown.state if self.kore.shown else None
        if state is None:
            return
        probes = self._visible(state)
        names = [p.id for p in probes]
        start = names.index(self._probe) + 1 if self._probe in names else 0
        for probe in [*probes[start:], *probes[:start]]:
            tuned = probe.at(self._step)
            if tuned is not None and tuned.answer.strip() != probe.base.strip():
                self.query_one("#probes", OptionList).highlighted = names.index(probe.id)
                return

    def copied(self) -> str:
        """The question with both answers."""
        state = self.kore.shown.state if self.kore.shown else None
        probe = state.probes.get(self._probe or "") if state else None
        if probe is None:
            return super().copied()
        tuned = probe.at(self._step)
        return f"{probe.question}\nbase: {probe.base}\n{self._label()}: {tuned.answer if tuned else '-'}"

    def table(self) -> tuple[list[str], list[list[object]]]:
        """Every answer at every checkpoint."""
        state = self.kore.shown.state if self.kore.shown else None
        rows: list[list[object]] = [
            [p.id, p.kind, p.question, p.image, p.expected, p.base, p.base_right, h.step, h.answer, h.right]
            for p in (state.probes.values() if state else ())
            for h in p.history
        ]
        return [
            "id",
            "kind",
            "question",
            "image",
            "expected",
            "base",
            "base_right",
            "step",
            "tuned",
            "tuned_right",
        ], rows


def _right(right: bool | None) -> Content:
    if right is None:
        return Content.styled("·", "$foreground 40%")
    return Content.styled("✔", "bold $success") if right else Content.styled("✖", "bold $error")


def _tone(right: bool | None) -> str:
    return "$accent" if right is None else "$success" if right else "$error"
