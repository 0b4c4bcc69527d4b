"""The list of runs: pick one to watch, mark others to draw over it."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option
from textual.worker import Worker, get_current_worker

from kore.artifacts.run import home
from kore_cli.dashboard.watcher import same
from kore_cli.dashboard.watching_app import WatchingApp
from kore_cli.render.runs import UNREADABLE, RunSummary, list_runs
from kore_cli.widgets.formatting import duration, fit, padded
from kore_cli.widgets.keys import RUNS, bindings

TONES = {"finished": "$success", "failed": "$error", "dead": "$error", "interrupted": "$warning"}


class RunsScreen(ModalScreen[None]):
    """Runs, newest first."""

    BINDINGS: ClassVar[list[BindingType]] = [*bindings(RUNS)]
    _runs: list[RunSummary] | None = None
    _reading: Worker[None] | None = None

    def compose(self) -> ComposeResult:
        """A list with one line per run."""
        with Vertical(id="runs") as box:
            box.border_title = Content(f"runs in {home()}")
            box.border_subtitle = "Enter watches · Space draws over · Escape closes"
            yield OptionList(id="runs-list")
            yield Static(id="runs-none", markup=False)

    def on_mount(self) -> None:
        """Fill the list, and keep it fresh."""
        self._list()
        self.set_interval(2.0, self._list)

    def on_resize(self) -> None:
        """Another width has room for other columns."""
        self.call_after_refresh(self._show)

    def _list(self) -> None:
        if self._reading is None or self._reading.is_finished:
            self._reading = self._read()

    @work(thread=True, group="runs")
    def _read(self) -> None:
        runs = list_runs()
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self._take, runs)

    def _take(self, runs: list[RunSummary]) -> None:
        self._runs = runs
        self.call_after_refresh(self._show)

    def _show(self) -> None:
        if self._runs is None or not self.is_attached:
            return
        runs = self._runs
        options = self.query_one(OptionList)
        at = options.highlighted
        marked = None if at is None else options.get_option_at_index(at).id
        names = [run.folder for run in runs]
        width = options.content_size.width - 2
        options.clear_options()
        options.add_options([Option(self._row(run, width), id=run.folder) for run in runs])
        options.highlighted = names.index(marked) if marked in names else 0 if runs else None
        none = self.query_one("#runs-none", Static)
        none.display = not runs
        none.update(f"no run in {home()} yet · start one with: kore demo")
        options.display = bool(runs)

    def _row(self, run: RunSummary, width: int) -> Content:
        assert isinstance(self.app, WatchingApp)
        folder = Path(run.folder)
        drawn = any(same(o.folder, folder) for o in self.app.others)
        watched = same(self.app.source.folder, folder)
        mark = "▶" if watched else "+" if drawn else " "
        if run.state == UNREADABLE:
            return Content.assemble(f"{mark} {run.name}  ", (UNREADABLE, "$error"))
        columns = [
            (f"{run.state:<12}", TONES.get(run.state, "$primary")),
            (f"{fit(run.method or '', 8):<9}", ""),
            (f"started {duration(run.age_s)} ago", "$foreground 55%"),
        ]
        if run.k_a is not None or run.k_r is not None:
            columns.append((f"  K.A {_score(run.k_a)}  K.R {_score(run.k_r)}", "bold"))
        while len(columns) > 1 and width - 3 - sum(len(part) for part, _ in columns) < 12:
            columns.pop()
        room = max(4, min(30, width - 3 - sum(len(part) for part, _ in columns)))
        return Content.assemble((f"{mark} ", "$accent"), (f"{padded(run.name, room)} ", "bold"), *columns)

    @on(OptionList.OptionSelected)
    def _picked(self, event: OptionList.OptionSelected) -> None:
        assert isinstance(self.app, WatchingApp) and event.option.id is not None
        self.dismiss()
        self.app.watch_run(Path(event.option.id))

    def action_over(self) -> None:
        """Draw the marked run over the one watched."""
        options = self.query_one(OptionList)
        if options.highlighted is not None and isinstance(self.app, WatchingApp):
            name = options.get_option_at_index(options.highlighted).id
            if name and not same(self.app.source.folder, Path(name)):
                self.app.toggle_overlay(Path(name))
                self._show()


def _score(score: float | None) -> str:
    return "-" if score is None else f"{score:.1f}"
