"""The dashboard: shows a run on five screens. Never imports torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from textual.app import SystemCommand
from textual.binding import Binding
from textual.screen import Screen

from kore.artifacts.run import title_of
from kore.errors import KoreError
from kore_cli.dashboard.watcher import RunSource, Snapshot
from kore_cli.dashboard.watching_app import WatchingApp
from kore_cli.render.csv_export import write_csv
from kore_cli.screens.help import HelpScreen
from kore_cli.screens.runs import RunsScreen
from kore_cli.screens.view import TABS, View
from kore_cli.widgets.keys import EVERYWHERE, bindings
from kore_cli.widgets.themes import OWN


def load_screen(name: str) -> Screen[None]:
    """A screen, imported when it is first visited."""
    module = import_module(f"kore_cli.screens.{name}")
    screen: Screen[None] = getattr(module, f"{name.title()}Screen")()
    return screen


class KoreApp(WatchingApp):
    """Everything about a run, live.

    Args:
        source, others: see `WatchingApp`.
        choose: open the list of runs first.
        options: the options of `WatchingApp`.
    """

    TITLE = "KORE"
    CSS_PATH = "../kore.tcss"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[Binding]] = bindings(EVERYWHERE)  # type: ignore[assignment]
    MODES: ClassVar[dict[str, Callable[[], Screen[None]]]] = {  # type: ignore[assignment]
        name: partial(load_screen, name) for name, _ in TABS
    }

    DEFAULT_MODE = "train"

    def __init__(
        self,
        source: RunSource,
        others: tuple[RunSource, ...] = (),
        *,
        theme: str = "kore-dark",
        choose: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(source, others, **options)
        for own in OWN:
            self.register_theme(own)
        self.theme = theme if theme in self.available_themes else "kore-dark"
        self._choose = choose

    def on_mount(self) -> None:
        """Open the list of runs if there is a choice."""
        if self._choose:
            self.push_screen(RunsScreen())

    def show_snapshot(self, snapshot: Snapshot) -> None:
        """Show it on the active screen; while paused only the header moves."""
        if isinstance(self.screen, View):
            (self.screen.show_header if self.paused else self.screen.fresh)(snapshot)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The command palette: Textual's own commands, screens, copying, exporting, sites."""
        yield from super().get_system_commands(screen)
        for name, title in TABS:
            yield SystemCommand(f"Go to {title}", f"the {title} screen", partial(self.action_go, name))
        yield SystemCommand("Pause or resume", "freeze what is shown", self.action_pause)
        yield SystemCommand("Pick a run", "watch another run, or draw it over this one", self.action_runs)
        yield SystemCommand("Export CSV", "what this screen shows, as a table", self.action_export_csv)
        yield SystemCommand("Export SVG", "this screen as an image", self.action_export_svg)
        yield SystemCommand("Copy the next command", "to the clipboard, also over ssh", self.action_copy)
        yield SystemCommand("Copy the run's path", "to the clipboard, also over ssh", self._copy_path)
        for spectrum in self.snapshot.spectra[:1] if self.snapshot else ():
            for site in spectrum.sites:
                jump = partial(self._jump, site.name)
                yield SystemCommand(f"Jump to {site.name}", "its spectrum", jump, discover=False)

    def _copy_path(self) -> None:
        if self.snapshot and self.snapshot.folder:
            self._copy(str(self.snapshot.folder.resolve()))

    def _jump(self, site: str) -> None:
        self.action_go("spectra")
        if isinstance(self.screen, View):
            self.screen.jump(site)

    def action_go(self, name: str) -> None:
        """Go to a screen."""
        while not isinstance(self.screen, View) and len(self.screen_stack) > 1:
            self.pop_screen()
        self.switch_mode(name)

    def action_pause(self) -> None:
        """Freeze what is shown, except for the header, or resume."""
        self.pause(not self.paused)
        if isinstance(self.screen, View):
            self.screen.fill()

    def action_help(self) -> None:
        """Show the keys."""
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen())

    def action_runs(self) -> None:
        """Pick a run, or runs to draw over this one."""
        if not isinstance(self.screen, RunsScreen):
            self.push_screen(RunsScreen())

    def action_next_theme(self) -> None:
        """The next theme: KORE's two, then the others."""
        names = [t.name for t in OWN] + sorted(n for n in self.available_themes if not n.startswith("kore-"))
        self.theme = names[(names.index(self.theme) + 1) % len(names)]
        self.notify(self.theme, title="theme", timeout=1.5)
        if isinstance(self.screen, View):
            self.call_after_refresh(self.screen.fill)

    def action_zoom_panel(self) -> None:
        """Enlarge the panel that has the focus (the chart if none has), or shrink it again."""
        screen = self.screen
        if screen.maximized:
            screen.minimize()
            return
        first = (w for w in screen.query("Chart, Box") if w.is_on_screen)
        target = screen.focused or next(first, None)
        if target is not None:
            screen.maximize(target)

    def action_copy(self) -> None:
        """Copy the selection, else the next command, through the terminal (OSC 52)."""
        chosen = self.screen.get_selected_text() or ""
        text = chosen or (self.screen.copied() if isinstance(self.screen, View) else "")
        if text:
            self._copy(text)

    def _copy(self, text: str) -> None:
        self.copy_to_clipboard(text)
        self.notify(text[:200], title="copied", timeout=2)

    def action_export_csv(self) -> None:
        """Write what the screen shows as CSV into the working folder."""
        if isinstance(self.screen, View):
            columns, rows = self.screen.table()
            if not rows:
                self.notify("nothing to write yet", severity="warning", timeout=2)
                return
            path = self._export_name("csv")
            try:
                write_csv(path, columns, rows)
            except (KoreError, OSError) as error:
                self._report_unwritten(path, error)
            else:
                self.notify(f"{path} ({len(rows)} rows)", title="written", timeout=4)

    def action_export_svg(self) -> None:
        """Write the screen as an image."""
        path = self._export_name("svg")
        image = self.export_screenshot(title=f"KORE {self.screen.__class__.__name__}")
        try:
            path.write_text(image, encoding="utf-8")
        except OSError as error:
            self._report_unwritten(path, error)
        else:
            self.notify(str(path), title="written", timeout=4)

    def _report_unwritten(self, path: Path, error: Exception) -> None:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        self.notify(f"{path.parent}: {reason}", title="not written", severity="error", timeout=4)

    def _export_name(self, suffix: str) -> Path:
        folder = self.snapshot.folder if self.snapshot else None
        run = title_of(folder).replace("/", "-") if folder else "kore"
        screen = self.screen.NAME if isinstance(self.screen, View) else "screen"
        return Path(f"{run}-{screen}-{time.strftime('%H%M%S')}.{suffix}").resolve()
