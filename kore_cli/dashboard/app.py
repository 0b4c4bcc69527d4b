"""The dashboard: watches a run folder in a thread and shows it on five screens. Never imports torch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import ClassVar, Literal

from textual import on
from textual.app import App
from textual.binding import Binding
from textual.message import Message
from textual.screen import Screen

from kore.artifacts.run import title_of
from kore.errors import KoreError
from kore_cli.dashboard.base_app import PlainApp
from kore_cli.dashboard.palette import KoreCommands
from kore_cli.dashboard.spectra_reader import SpectrumSet, distinct
from kore_cli.dashboard.store import DashboardState
from kore_cli.dashboard.watcher import RunSource, Snapshot, same
from kore_cli.screens.help import HelpScreen
from kore_cli.screens.runs import RunsScreen
from kore_cli.screens.view import TABS, View
from kore_cli.widgets.keys import EVERYWHERE, bindings
from kore_cli.widgets.themes import OWN

Images = Literal["auto", "blocks", "off"]
REDRAW, SELDOMEST = 0.5, 4.0
READING = 0.25  # between looks while the past of a run is read


@dataclass(frozen=True)
class Overlay:
    """Another run, drawn over the one watched. `unread`: some of its past is still to be read."""

    name: str
    folder: Path
    state: DashboardState
    spectra: tuple[SpectrumSet, ...] = ()
    unread: bool = False


def visited(name: str) -> Screen[None]:
    """A screen, imported when it is first visited."""
    module = import_module(f"kore_cli.screens.{name}")
    screen: Screen[None] = getattr(module, f"{name.title()}Screen")()
    return screen


class KoreApp(PlainApp):
    """Everything about a run, live.

    Args:
        source: the run to watch. others: runs to draw over it.
        images: pictures by the terminal's best protocol, in half blocks, or not at all.
        choose: open the list of runs first.
        new_source: makes a source for a folder that was picked in the list.
        live: False reads once on `refresh_now` only (tests).
        share: of a core that following the run may take.
    """

    TITLE = "KORE"
    CSS_PATH = "../kore.tcss"
    ENABLE_COMMAND_PALETTE = True
    COMMANDS = App.COMMANDS | {KoreCommands}
    BINDINGS: ClassVar[list[Binding]] = bindings(EVERYWHERE)  # type: ignore[assignment]
    MODES: ClassVar[dict[str, Callable[[], Screen[None]]]] = {  # type: ignore[assignment]
        name: partial(visited, name) for name, _ in TABS
    }

    DEFAULT_MODE = "train"

    class Fresh(Message):
        """Something changed in the run folder."""

        def __init__(self, snapshot: Snapshot, overlays: tuple[Overlay, ...]) -> None:
            super().__init__()
            self.snapshot = snapshot
            self.overlays = overlays

    def __init__(
        self,
        source: RunSource,
        others: tuple[RunSource, ...] = (),
        *,
        images: Images = "auto",
        theme: str = "kore-dark",
        choose: bool = False,
        new_source: Callable[[Path], RunSource] = RunSource,
        live: bool = True,
        share: float = 0.015,
    ) -> None:
        super().__init__()
        for own in OWN:
            self.register_theme(own)
        self.theme = theme if theme in self.available_themes else "kore-dark"
        self.source, self.others = source, list(others)
        self.images: Images = images
        self.snapshot: Snapshot | None = None
        self.shown: Snapshot | None = None
        self.overlays: tuple[Overlay, ...] = ()
        self._overlays: tuple[Overlay, ...] = ()
        self.paused = False
        self._choose, self._new_source, self._live = choose, new_source, live
        self._share = share
        self._stop, self._nudge = threading.Event(), threading.Event()

    def on_mount(self) -> None:
        """Watch in a thread."""
        if self._live:
            self.run_worker(self._watch, thread=True, name="watch", exit_on_error=True)
        if self._choose:
            self.push_screen(RunsScreen())

    def on_unmount(self) -> None:
        """Let the thread go."""
        self._stop.set()
        self._nudge.set()

    def _watch(self) -> None:
        pace = Pace(self._share)
        turn = 0
        overlays: tuple[Overlay, ...] = ()
        while not self._stop.is_set():
            began = time.monotonic()
            snapshot = self.source.poll(look_back=0.2)
            reading = any(o.unread for o in overlays)
            if turn % 8 == 0 or reading or len(overlays) != len(self.others):
                overlays = self._read_overlays(0.1)
            turn += 1
            if self._stop.is_set():
                return
            self.post_message(self.Fresh(snapshot, overlays))
            reading = reading or snapshot.history is not None
            rest = max(0.05, READING - (time.monotonic() - began))
            self._nudge.wait(rest if reading else pace.wait())
            self._nudge.clear()

    def _read_overlays(self, look_back: float) -> tuple[Overlay, ...]:
        found = []
        for other in list(self.others):
            snapshot = other.poll(look_back=look_back)
            if snapshot.folder is not None:
                name = title_of(snapshot.folder)
                unread = snapshot.history is not None
                found.append(Overlay(name, snapshot.folder, snapshot.state, snapshot.spectra, unread))
        return tuple(found)

    def refresh_now(self) -> None:
        """Read the folder in this thread and show it (tests, and without live watching)."""
        self.take(self.source.poll(look_back=5.0), self._read_overlays(5.0))

    @on(Fresh)
    def _fresh(self, message: Fresh) -> None:
        self.take(message.snapshot, message.overlays)

    def take(self, snapshot: Snapshot, overlays: tuple[Overlay, ...]) -> None:
        """Keep a snapshot, and let the screen that is seen show it.

        The spectra of what is drawn over the run (runs, or folders of covariances) come after its own.
        """
        drawn = tuple(s for o in overlays for s in o.spectra)
        if drawn:
            snapshot = replace(snapshot, spectra=distinct([*snapshot.spectra, *drawn]))
        self.snapshot, self._overlays = snapshot, overlays
        if not self.paused:
            self.shown, self.overlays = snapshot, overlays
        if isinstance(self.screen, View):
            if self.paused:
                self.screen.show_header(snapshot)
            else:
                self.screen.fresh(snapshot)

    def watch_run(self, folder: Path) -> None:
        """Turn to another run, and go on if paused."""
        self.paused = False
        self.source = self._new_source(folder)
        self.snapshot = self.shown = None
        self.others = [o for o in self.others if not same(o.folder, folder)]
        self.nudge()

    def toggle_overlay(self, folder: Path) -> None:
        """Draw another run over this one, or stop doing so."""
        if any(same(o.folder, folder) for o in self.others):
            self.others = [o for o in self.others if not same(o.folder, folder)]
        else:
            self.others.append(self._new_source(folder))
        self.nudge()

    def nudge(self) -> None:
        """Read again now."""
        self._nudge.set()
        if not self._live:
            self.refresh_now()

    def action_go(self, name: str) -> None:
        """Turn to a screen."""
        while not isinstance(self.screen, View) and len(self.screen_stack) > 1:
            self.pop_screen()
        self.switch_mode(name)

    def action_pause(self) -> None:
        """Freeze what is shown; the header goes on."""
        self.paused = not self.paused
        if not self.paused:
            self.shown, self.overlays = self.snapshot, self._overlays
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
        """Copy through the terminal (OSC 52): the next command, or what is selected."""
        chosen = self.screen.get_selected_text() or ""
        text = chosen or (self.screen.copied() if isinstance(self.screen, View) else "")
        if text:
            self.copy_to_clipboard(text)
            self.notify(text[:200], title="copied", timeout=2)

    def action_export_csv(self) -> None:
        """Write what the screen shows as CSV into the working folder."""
        from kore_cli.render.csv_export import write_csv

        if isinstance(self.screen, View):
            columns, rows = self.screen.table()
            if not rows:
                self.notify("nothing to write yet", severity="warning", timeout=2)
                return
            path = self._export_name("csv")
            try:
                write_csv(path, columns, rows)
            except (KoreError, OSError) as error:
                self._not_written(path, error)
            else:
                self.notify(f"{path} ({len(rows)} rows)", title="written", timeout=4)

    def action_export_svg(self) -> None:
        """Write the screen as a picture."""
        path = self._export_name("svg")
        picture = self.export_screenshot(title=f"KORE {self.screen.__class__.__name__}")
        try:
            path.write_text(picture, encoding="utf-8")
        except OSError as error:
            self._not_written(path, error)
        else:
            self.notify(str(path), title="written", timeout=4)

    def _not_written(self, path: Path, error: Exception) -> None:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        self.notify(f"{path.parent}: {reason}", title="not written", severity="error", timeout=4)

    def _export_name(self, suffix: str) -> Path:
        folder = self.snapshot.folder if self.snapshot else None
        run = title_of(folder).replace("/", "-") if folder else "kore"
        screen = self.screen.NAME if isinstance(self.screen, View) else "screen"
        return Path(f"{run}-{screen}-{time.strftime('%H%M%S')}.{suffix}").resolve()


class Pace:
    """How long to wait between looks: the more the process costs, the longer, so that it stays cheap.

    Args:
        share: of a core that following may take. There are never more than 2 looks a second, and never
            fewer than one in 4 seconds.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._cpu, self._wall = time.process_time(), time.monotonic()
        self._wait = REDRAW

    def wait(self) -> float:
        """Seconds until the next look."""
        cpu, wall = time.process_time(), time.monotonic()
        if wall - self._wall >= 2.0:
            used = (cpu - self._cpu) / (wall - self._wall)
            self._wait = min(SELDOMEST, max(REDRAW, self._wait * min(1.6, max(0.6, used / self._share))))
            self._cpu, self._wall = cpu, wall
        return self._wait
