"""The Train screen: loss and other metrics, the machine, probe counts, the end of the log."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget

from kore.artifacts.run import title_of
from kore_cli.dashboard.store import DashboardState
from kore_cli.dashboard.watcher import Snapshot
from kore_cli.screens.machine import compact_machine, machine
from kore_cli.screens.parts import Still
from kore_cli.screens.verdicts import counts
from kore_cli.screens.view import View
from kore_cli.widgets.chart import Chart, Line, Notch
from kore_cli.widgets.curve import Curve
from kore_cli.widgets.formatting import duration, fit, fit_ends, short, spark
from kore_cli.widgets.keys import TRAIN, bindings
from kore_cli.widgets.themes import palette, styled

METRICS = (
    ("loss", "loss"),
    ("lr", "learning rate"),
    ("grad_norm", "gradient norm"),
    ("tokens_per_s", "tokens a second"),
)
SHORT = {"loss": "loss", "lr": "lr", "grad_norm": "grad", "tokens_per_s": "tok/s"}
SETTINGS = (
    ("model", "model.id"),
    ("rank", "adapter.rank"),
    ("lr", "train.lr"),
    ("batch", "train.batch"),
    ("epochs", "train.epochs"),
)
REDRAW_EVERY = 15.0  # seconds
SMOOTHING = (0.01, 0.04, 0.0)


class TrainScreen(View):
    """Training so far and now."""

    NAME = "train"
    FILTERS = "the log"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings(TRAIN)]

    def __init__(self) -> None:
        super().__init__()
        self.metric = 0
        self.smoothing = 0
        self._drawn: tuple[object, float, float] = (None, 0.0, 0.0)

    def body(self) -> Iterable[Widget]:
        """A chart, tiles, the machine, the log."""
        tiles = [Still(id=f"tile-{name}", classes="tile") for name, _ in METRICS]
        side = Vertical(
            Still(id="machine", classes="panel"),
            Still(id="counts", classes="panel"),
            Still(id="about", classes="panel"),
            id="side",
        )
        yield Horizontal(
            Vertical(Chart(id="chart"), Horizontal(*tiles, id="tiles"), id="main"), side, id="upper"
        )
        yield Still(id="log", classes="panel")
        yield Still(id="compact")

    @property
    def _lines_only(self) -> bool:
        return self.has_class("-short") or (self.has_class("-narrow") and not self.has_class("-tall"))

    @property
    def _shows_next(self) -> bool:
        return self.has_class("-medium") or self.has_class("-narrow") or self._lines_only

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Without a chart its keys do nothing and leave the footer."""
        return not (self._lines_only and action in ("log_axis", "smooth", "metric"))

    def show(self, snapshot: Snapshot) -> None:
        """Draw what this size has room for."""
        if not self._lines_only:
            self._chart(snapshot)
        if self.has_class("-narrow") or self._lines_only:
            self.query_one("#compact", Still).update(self._compact(snapshot))
            return
        for index, (name, title) in enumerate(METRICS):
            self._tile(snapshot.state, index, name, title)
        panel = self.query_one("#machine", Still)
        panel.entitle("machine", snapshot.source)
        # its height follows its text, up to this share of the column
        tall = self.has_class("-tall")
        height = self.query_one("#side").size.height * 6 // 10 - 2 if tall else panel.content_size.height
        panel.update(machine(snapshot.readings, max(12, panel.content_size.width), height))
        self._counts(snapshot)
        self._about(snapshot)
        self._log(snapshot)

    def _about(self, snapshot: Snapshot) -> None:
        panel = self.query_one("#about", Still)
        panel.entitle("run", "y copies next" if next_among_facts(snapshot) else "")
        panel.update(about(snapshot, max(12, panel.content_size.width)))

    def _chart(self, snapshot: Snapshot) -> None:
        state = snapshot.state
        name, title = METRICS[self.metric]
        chart = self.query_one("#chart", Chart)
        if not self._changed(snapshot, chart):
            return
        chart.show(self._lines(state, name), notches(state))
        chart.border_title = title + (" · log" if chart.log_y else "")
        chart.border_subtitle = self._legend(snapshot, name)
        if not state.curve(name):
            chart.border_subtitle = "no step yet" if name == "loss" else "not logged by this run"

    def _changed(self, snapshot: Snapshot, chart: Chart) -> bool:
        """Whether the chart would look different: a long curve grows by less than a dot a step."""
        state = snapshot.state
        curve = state.curve(METRICS[self.metric][0])
        look = (
            *(snapshot.folder, self.metric, self.smoothing, chart.log_y, chart.size, self.app.theme),
            *(tuple(id(o.state) for o in self.kore.overlays), len(state.marks), snapshot.history),
            len(state.curve("held_out_loss")),
        )
        newest = curve.x[-1] if curve else 0.0
        before, drawn_to, at = self._drawn
        dot = (newest - curve.x[0]) / max(1, 2 * chart.size.width) if curve else 0.0
        if look == before and 0 <= newest - drawn_to < dot and 0 <= snapshot.now - at < REDRAW_EVERY:
            return False
        self._drawn = (look, newest, snapshot.now)
        return True

    def _lines(self, state: DashboardState, name: str) -> list[Line]:
        lines: list[Line] = []
        raw = state.curve(name)
        share = SMOOTHING[self.smoothing] if name in ("loss", "grad_norm", "tokens_per_s") else 0.0
        if share and len(raw) > 8:
            lines.append(Line(raw, "dim", "raw"))
        for index, other in enumerate(self.kore.overlays, start=2):
            curve = other.state.curve(name)
            lines.append(Line(curve.smoothed(share), index, other.name))
        if name == "loss" and len(held := state.curve("held_out_loss")):
            lines.append(Line(held, 1, "held out"))
        lines.append(Line(raw.smoothed(share) if len(raw) > 8 else raw, 0, name))
        return lines

    def _legend(self, snapshot: Snapshot, name: str) -> Content:
        colours = palette(self.app.current_theme)
        parts = []
        state = snapshot.state
        others = [o for o in self.kore.overlays if o.state.curve(name)]
        held = name == "loss" and len(state.curve("held_out_loss"))
        smooth = SMOOTHING[self.smoothing] and len(state.curve(name)) > 8 and name != "lr"
        own = title_of(snapshot.folder) if others and snapshot.folder else "smoothed" if smooth else name
        if smooth:
            parts.append(Content.assemble(("━ ", styled(colours.dim)), "raw"))
        if smooth or others or held:
            parts.append(Content.assemble(("━ ", styled(colours.line(0))), fit(own, 18)))
        if held:
            parts.append(Content.assemble(("━ ", styled(colours.line(1))), "held out"))
        parts += [
            Content.assemble(("━ ", styled(colours.line(i))), fit(other.name, 18))
            for i, other in enumerate(self.kore.overlays, start=2)
            if other.state.curve(name)
        ]
        if any(m.kind == "checkpoint" for m in state.marks):
            parts.append(Content.assemble(("◆ ", "$success"), "checkpoint"))
        if state.best:
            parts.append(Content.assemble(("★ ", "$warning"), "best probe score"))
        if snapshot.history is not None:
            parts.append(Content.styled(f"reading older events {100 * snapshot.history:.0f}%", "$warning"))
        text, room = Content(""), max(10, self.query_one("#chart").size.width - 4)
        for part in parts:
            longer = Content("  ").join([text, part]) if text else part
            if longer.cell_length > room:
                break
            text = longer
        return text

    def _tile(self, state: DashboardState, index: int, name: str, title: str) -> None:
        tile = self.query_one(f"#tile-{name}", Still)
        width = max(6, tile.content_size.width)
        curve = state.curve(name)
        value = state.now.get(name)
        broken = value is None and name in state.now
        text = ("not a number" if width > 12 else "nan") if broken else short(value)
        change = trend(curve)
        parts = [(fit(text, width), "$error bold" if broken else "bold")]
        if len(text) + 2 + len(change) <= width:
            parts.append((f"  {change}", "$foreground 55%"))
        tile.entitle(title if width > len(title) else SHORT[name])
        tile.set_class(index == self.metric, "-chosen")
        tile.update(Content.assemble(*parts, "\n", (spark(curve.y, width), "$primary")))

    def _counts(self, snapshot: Snapshot) -> None:
        panel = self.query_one("#counts", Still)
        panel.entitle("answers")
        panel.update(counts(snapshot.state, max(12, panel.content_size.width)))

    def _log(self, snapshot: Snapshot) -> None:
        panel = self.query_one("#log", Still)
        panel.entitle(Content(f"log · {self.filter_text}" if self.filter_text else "log"))
        lines = [line for line in log_lines(snapshot) if self.filter_text in line.lower()]
        height = max(1, panel.content_size.height)
        width = max(10, panel.content_size.width)
        if not lines:
            panel.update(
                Content.styled(
                    self.no_match if self.filter_text else "nothing printed yet", "$foreground 45%"
                )
            )
            return
        shown = [log_style(fit(line, width)) for line in lines[-height:]]
        panel.update(Content("\n").join(shown))

    def _compact(self, snapshot: Snapshot) -> Content:
        """A line per metric, for terminals without room for a chart."""
        width = self.size.width
        state = snapshot.state
        rows = []
        for name, label in (
            ("loss", "loss"),
            ("held_out_loss", "held"),
            ("grad_norm", "grad"),
            ("lr", "lr"),
            ("tokens_per_s", "tok/s"),
        ):
            curve = state.curve(name)
            if not len(curve) and name != "loss":
                continue
            value = state.now.get(name)
            text = short(value) if value is not None or name not in state.now else "nan"
            rows.append(
                Content.assemble(
                    (f"{label:<6}", "$foreground 55%"),
                    (f"{text:<8}", "$error bold" if text == "nan" else "bold"),
                    (spark(curve.y, width - 17), "$primary"),
                )
            )
        rows += compact_machine(snapshot.readings, width - 2)
        if times := _times(snapshot):
            rows.append(Content.styled(fit(times, width - 2), "$foreground 75%"))
        if state.probes:
            rows.append(counts(state, width - 2, one_line=True))
        lines = [line for line in log_lines(snapshot) if self.filter_text in line.lower()]
        room = max(0, self.query_one("#compact").size.height - len(rows))
        rows += [Content.styled(fit(line, width - 2), "$foreground 55%") for line in lines[-room:] if room]
        return Content("\n").join(rows)

    def action_log_axis(self) -> None:
        """Logarithmic or plain y axis."""
        chart = self.query_one("#chart", Chart)
        chart.log_y = not chart.log_y
        self.fill()

    def action_smooth(self) -> None:
        """More, less or no smoothing."""
        self.smoothing = (self.smoothing + 1) % len(SMOOTHING)
        self.notify(
            "smoothing "
            + (
                "off" if not SMOOTHING[self.smoothing] else f"over {SMOOTHING[self.smoothing]:.0%} of the run"
            ),
            timeout=2,
        )
        self.fill()

    def action_metric(self) -> None:
        """The next metric in the large chart."""
        self.metric = (self.metric + 1) % len(METRICS)
        self.query_one("#chart", Chart).action_reset_scales()
        self.fill()

    def table(self) -> tuple[list[str], list[list[object]]]:
        """Every metric by step."""
        snapshot = self.kore.shown
        if snapshot is None:
            return [], []
        names = [n for n in snapshot.state.curves]
        steps = sorted({x for n in names for x in snapshot.state.curve(n).x})
        columns = {
            n: dict(zip(snapshot.state.curve(n).x, snapshot.state.curve(n).y, strict=True)) for n in names
        }
        return ["step", *names], [[int(s), *(columns[n].get(s) for n in names)] for s in steps]


def _times(snapshot: Snapshot) -> str:
    """What a narrow header has no room for: ETA and age of the last checkpoint."""
    state = snapshot.state
    if snapshot.liveness.over:
        return ""
    parts = [f"ETA {duration(state.eta_s)}"] if state.eta_s is not None else []
    if state.checkpoint:
        parts.append(f"saved {duration(snapshot.now - state.checkpoint.t)} ago")
    return " · ".join(parts)


def notches(state: DashboardState) -> list[Notch]:
    """Checkpoints, warnings and resumes as signs on the axis."""
    signs = [Notch(m.step, "◆", "good") for m in state.marks if m.kind == "checkpoint"]
    signs += [Notch(m.step, "↻", "dim", tall=True) for m in state.marks if m.kind == "resumed"]
    if state.best:
        signs.append(Notch(state.best.step, "★", "warn"))
    signs += [Notch(m.step, "▲", "warn", tall=True) for m in state.marks if m.kind == "warning"]
    return signs


def next_among_facts(snapshot: Snapshot) -> bool:
    """Whether the next command stands among the facts; in other states the banner shows it."""
    return snapshot.liveness.name in ("starting", "running")


def about(snapshot: Snapshot, width: int) -> Content:
    """The run: method, model and the most important settings."""
    run, state = snapshot.run, snapshot.state
    if run is None:
        return Content.styled("not started", "$foreground 45%")
    values = _flat(run.profile)
    facts = [
        *((("next", snapshot.liveness.command),) if next_among_facts(snapshot) else ()),
        ("method", run.method),
        *((label, values[key]) for label, key in SETTINGS if values.get(key) is not None),
    ]
    if state.epoch is not None:
        facts.append(("epoch", f"{state.epoch:.2f}"))
    facts += [
        ("host", f"{run.host} · {run.pid}"),
        ("running", duration((run.ended or snapshot.now) - run.started)),
    ]
    live = snapshot.liveness
    if live.age is not None and not live.over:
        facts.append(("last event", f"{duration(live.age)} ago"))
    if state.warnings:
        facts.append(("warnings", str(len(state.warnings))))
    rows = [
        Content.assemble(
            (f"{name:<11}", "$foreground 55%"), (fit_ends if name == "next" else fit)(str(value), width - 11)
        )
        for name, value in facts
    ]
    return Content("\n").join(rows)


def _flat(profile: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in profile.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def trend(curve: Curve) -> str:
    """The change of the last tenth against the tenth before."""
    n = len(curve) // 10
    if n < 2:
        return ""
    before, after = sum(curve.y[-2 * n : -n]) / n, sum(curve.y[-n:]) / n
    if abs(after - before) <= 0.005 * max(abs(before), 1e-12):
        return "→ flat"
    change = (after - before) / max(abs(before), 1e-12)
    return f"{'↗' if change > 0 else '↘'} {abs(change):.0%}"


def log_lines(snapshot: Snapshot) -> list[str]:
    """The end of the log with the latest warnings; without a log, the story of the events."""
    state = snapshot.state
    if not snapshot.log:
        return [_at(t, text) for t, text in state.story]
    # the stages print until training starts; from there the events continue
    newest = {(m.t, f"▲ step {m.step:,.0f}: {m.text}") for m in state.warnings[-3:]}
    newest.update(state.story[-4:])
    return [*snapshot.log, *(_at(t, text) for t, text in sorted(newest))]


def _at(t: float, text: str) -> str:
    return f"{time.strftime('%H:%M:%S', time.localtime(t))}  {text}"


def log_style(line: str) -> Content:
    """Errors and warnings stand out."""
    low = line.lower()
    if "▲" in low or "warning" in low:
        return Content.styled(line, "$warning")
    if "error" in low or "traceback" in low:
        return Content.styled(line, "$error")
    return Content.styled(line, "$foreground 75%")
