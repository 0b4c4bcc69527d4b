"""The base of the dashboard's screens: header, tabs, banner, one-line form, footer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Input

from kore.artifacts.run import title_of
from kore_cli.dashboard.run_status import Liveness
from kore_cli.dashboard.watcher import Snapshot
from kore_cli.dashboard.watching_app import WatchingApp
from kore_cli.screens.parts import KeyBar, Still
from kore_cli.widgets.chart import Chart
from kore_cli.widgets.formatting import bar, duration, fit, fit_ends, short

TABS = (
    ("train", "Train"),
    ("spectra", "Spectra"),
    ("answers", "Answers"),
    ("results", "Results"),
    ("knowledge", "Knowledge"),
)
TONES = {
    "waiting": "$foreground 60%",
    "starting": "$primary",
    "running": "$success",
    "stalled": "$warning",
    "dead": "$error",
    "finished": "$success",
    "failed": "$error",
    "interrupted": "$warning",
}


class View(Screen[None]):
    """A screen of the dashboard: `body` gives its widgets, `show` fills them."""

    NAME: ClassVar[str] = ""
    FILTERS: ClassVar[str] = ""
    # a chart's keys work wherever the focus is, unless the focused widget has them
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(b.key, f"chart('{b.action}')", b.description, show=False)
        for b in Chart.BINDINGS
        if isinstance(b, Binding)
    ]
    _sizes: object = None
    _depended: object = None
    HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (40, "-narrow"), (80, "-normal"), (120, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (10, "-short"), (20, "-medium"), (34, "-tall")]  # noqa: RUF012

    def compose(self) -> ComposeResult:
        """Header, tabs, banner, body, filter, footer."""
        yield Still(id="header")
        yield Still(id="tabs")
        yield Still(id="banner")
        yield Container(*self.body(), id="body")
        yield Still(id="line")
        yield Input(placeholder=f"filter {self.FILTERS} · Enter keeps it, Escape clears it", id="filter")
        yield KeyBar()

    async def action_chart(self, name: str) -> None:
        """Run an action of the visible chart."""
        for chart in self.query(Chart):
            if chart.is_on_screen:
                await chart.run_action(name)

    def body(self) -> Iterable[Widget]:
        """The widgets of this screen."""
        return ()

    def show(self, snapshot: Snapshot) -> None:
        """Fill the widgets; called only while this screen is seen."""

    @property
    def kore(self) -> WatchingApp:
        """The app, by its own type."""
        assert isinstance(self.app, WatchingApp)
        return self.app

    def jump(self, name: str) -> None:
        """Show something by its name, where the screen has such things."""

    @property
    def filter_text(self) -> str:
        """The filter's text in lower case."""
        return self.query_one("#filter", Input).value.strip().lower()

    def on_screen_resume(self) -> None:
        """Show the newest snapshot at once."""
        self.fill()

    def on_mount(self) -> None:
        """Fill again when a widget's size changes: lines depend on widths."""
        self.query_one("#tabs", Still).update(tabs(self.NAME))
        self.screen_layout_refresh_signal.subscribe(self, self._laid_out)

    def _laid_out(self, _: Screen[None]) -> None:
        sizes = [child.size for child in self.query_one("#body").walk_children(Widget)]
        if sizes != self._sizes:
            self._sizes = sizes
            self.refresh_bindings()
            self.call_next(self.fill)

    def depends(self, snapshot: Snapshot) -> object:
        """The part of a snapshot that this screen shows; None if it also shows the time."""
        return None

    @property
    def _tiny(self) -> bool:
        return self.has_class("-tiny") or self.has_class("-flat")

    @property
    def _shows_next(self) -> bool:
        """Whether the banner shows the next command while the run is working."""
        return False

    def fill(self) -> None:
        """Show the newest snapshot, header first."""
        snapshot = self.kore.snapshot
        if snapshot is None or not self.is_mounted:
            return
        self.show_header(snapshot)
        if not self._tiny:
            shown = self.kore.shown or snapshot
            self._depended = self.depends(shown)
            self.show(shown)

    def fresh(self, snapshot: Snapshot) -> None:
        """Show a new snapshot if it differs in what this screen shows."""
        content = self.depends(snapshot)
        if content is None or content != self._depended:
            self.fill()
        else:
            self.show_header(snapshot)

    def show_header(self, snapshot: Snapshot) -> None:
        """Update the header and banner, also while paused."""
        width = self.size.width
        self.query_one("#header", Still).update(header(snapshot, width, paused=self.kore.paused))
        banner = self.query_one("#banner", Still)
        text = banner_text(snapshot, width, low=self.has_class("-short"), working=self._shows_next)
        banner.display = text is not None and not self._tiny
        if text is not None:
            banner.update(text)
            banner.set_class(snapshot.liveness.name in ("dead", "failed"), "-bad")
        if self._tiny:
            self.query_one("#line", Still).update(one_line(snapshot, width))

    @property
    def no_match(self) -> str:
        """The text shown when nothing matches the filter."""
        return f"nothing matches {self.filter_text!r} · Escape clears"

    @on(Input.Changed, "#filter")
    def _filtered(self) -> None:
        self.fill()

    @on(Input.Submitted, "#filter")
    def _filter_kept(self) -> None:
        if not self.filter_text:
            self.query_one("#filter", Input).styles.display = "none"
        self.set_focus(None)

    def action_filter(self) -> None:
        """Open the filter."""
        field = self.query_one("#filter", Input)
        field.styles.display = "block"
        field.focus()

    def clear_filter(self) -> None:
        """Show all again."""
        field = self.query_one("#filter", Input)
        field.value = ""
        field.styles.display = "none"

    def action_back(self) -> None:
        """Close the filter, or leave the enlarged panel."""
        self.clear_filter()
        if self.maximized:
            self.minimize()
        self.set_focus(None)

    def copied(self) -> str:
        """The text that `y` copies."""
        snapshot = self.kore.snapshot
        if snapshot is None:
            return ""
        return snapshot.liveness.command or str(snapshot.folder or "")

    def table(self) -> tuple[list[str], list[list[object]]]:
        """The CSV that `e` writes: column names and rows."""
        return [], []


def sign(live: Liveness) -> Content:
    """The condition's sign in its colour."""
    return Content.styled(live.sign, f"{TONES[live.name]} bold")


def header(snapshot: Snapshot, width: int, *, paused: bool) -> Content:
    """Name, condition and progress."""
    live = snapshot.liveness
    name = title_of(snapshot.folder) if snapshot.folder else "no run yet"
    words = live.words if live.name in ("starting", "running") else live.name
    left = Content.assemble(
        (" KORE ", "bold $background on $primary"),
        " ",
        (fit(name, max(8, width // 4)), "bold"),
        "  ",
        sign(live),
        " ",
        (fit(words, max(10, width // 3)), TONES[live.name]),
    )
    if paused:
        left = Content.assemble(left, "  ", (" paused ", "bold $background on $warning"))
    right = progress(snapshot, width - left.cell_length - 2)
    gap = max(1, width - left.cell_length - right.cell_length - 1)
    return Content.assemble(left, " " * gap, right)


def progress(snapshot: Snapshot, room: int) -> Content:
    """Step, bar, ETA and the last checkpoint's age, as far as there is room."""
    state, live = snapshot.state, snapshot.liveness
    if not state.step:
        return Content("")
    parts: list[Content] = []
    total = f"/{state.steps:,}" if state.steps else ""
    parts.append(Content.assemble(("step ", "$foreground 55%"), (f"{state.step:,}{total}", "bold")))
    if state.steps:
        filled, empty = bar(state.step / state.steps, 12)
        parts.append(
            Content.assemble(
                (filled, "$primary"), (empty, "$foreground 25%"), f" {100 * state.step // state.steps}%"
            )
        )
    if state.eta_s is not None and not live.over:
        parts.append(Content.assemble(("ETA ", "$foreground 55%"), duration(state.eta_s)))
    if state.checkpoint and not live.over:
        parts.append(
            Content.assemble(
                ("saved ", "$foreground 55%"),
                duration(snapshot.now - state.checkpoint.t),
                (" ago", "$foreground 55%"),
            )
        )
    while parts and sum(p.cell_length + 3 for p in parts) > room:
        parts.pop(1 if len(parts) > 1 else 0)
    return Content("   ").join(parts)


def tabs(active: str) -> Content:
    """The screens' names; each can be clicked."""
    parts = []
    for number, (name, title) in enumerate(TABS, start=1):
        text = f" {number} {title} "
        if name == active:
            parts.append(Content.styled(text, "bold $background on $primary 80%"))
        else:
            parts.append(Content.from_markup(f"[@click=app.go('{name}')]$text[/]", text=text))
    return Content(" ").join(parts)


def banner_text(
    snapshot: Snapshot, width: int, *, low: bool = False, working: bool = False
) -> Content | None:
    """Problems and the next command; None where there is neither.

    Args:
        low: there are two lines at most. working: show the next command also while the run works.
    """
    live, bad, run = snapshot.liveness, snapshot.state.nonfinite, snapshot.run
    if bad is not None and run is not None and bad.t < run.started:
        bad = None  # resumed since
    well = live.name in ("running", "starting")
    lines: list[Content] = []
    if bad is not None and (well or not low):
        lines.append(Content.styled(f"▲ {bad.text}", "bold $error"))
    if not well:
        words = bad.text if bad is not None and low else live.words
        lines.append(Content.assemble(sign(live), " ", (words, TONES[live.name])))
    if live.command and (working or not well):
        lines.append(next_line(live.command, width - 2))
    if snapshot.problem:
        lines += [Content.styled(line, "$error") for line in f"▲ {snapshot.problem}".splitlines()]
    if not lines:
        return None
    return Content("\n").join([line.truncate(width - 2, ellipsis=True) for line in lines])


def next_line(command: str, room: int) -> Content:
    """The next command in a line, and which key copies it if there is room for that too."""
    line = Content.assemble(("  next: ", "$foreground 60%"), (fit_ends(command, room - 8), "bold"))
    copies = Content.styled("   y copies it", "$foreground 40%")
    return line if line.cell_length + copies.cell_length > room else Content.assemble(line, copies)


def one_line(snapshot: Snapshot, width: int) -> Content:
    """The whole dashboard in one line, for very small terminals."""
    state, live = snapshot.state, snapshot.liveness
    parts = [Content.assemble(sign(live), " ", (f"{state.step:,}" if state.step else live.name, "bold"))]
    loss = state.now.get("loss")
    if loss is not None:
        parts.append(Content(f"loss {short(loss)}"))
    if snapshot.readings and snapshot.readings[-1][1].devices:
        used = [d.util for d in snapshot.readings[-1][1].devices if d.util is not None]
        if used:
            parts.append(Content(f"{sum(used) / len(used):.0f}%"))
    if state.eta_s is not None and not live.over:
        parts.append(Content(duration(state.eta_s)))
    elif live.over:
        parts.append(Content(live.name))
    return Content("  ").join(parts).truncate(width, ellipsis=True)
