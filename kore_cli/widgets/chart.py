"""Line charts of curves: finite points only, thinned to what is visible, log axes, marks and shading.

The only module that imports textual-plot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from textual.binding import Binding, BindingType
from textual.reactive import reactive
from textual_hires_canvas import Canvas
from textual_plot import AxisFormatter, HiResMode, NumericAxisFormatter, PlotWidget
from textual_plot.plot_widget import LinePlot

from kore_cli.widgets.curve import Curve, finite
from kore_cli.widgets.formatting import short
from kore_cli.widgets.themes import palette

NARROWEST, WIDEST = 1e-6, 10.0  # limits of a window's width, as a multiple of the curves' width
FLAT = 2e-6  # the width of textual-plot's window on a flat line
# the bit of each of a cell's 4 x 2 dots in a braille pattern
DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], dtype=np.uint8)


@dataclass(frozen=True)
class Line:
    """A curve to draw. `tone` is a number in the palette's series, or one of dim, good, warn, bad."""

    curve: Curve
    tone: int | str
    label: str
    dots: bool = False


@dataclass(frozen=True)
class Notch:
    """A sign on the x axis; `tall` draws a dotted line above it."""

    x: float
    sign: str
    tone: str
    tall: bool = False


class PowerFormatter(AxisFormatter):
    """Labels for an axis that carries log10 of the values."""

    def get_ticks(self, min_: float, max_: float, max_ticks: int = 8) -> list[float]:
        """Whole decades, with 2 and 5 between them where there is room."""
        low, high = math.ceil(min_ - 1e-9), math.floor(max_ + 1e-9)
        decades = [float(k) for k in range(low, high + 1)]
        if len(decades) > max_ticks:
            stride = math.ceil(len(decades) / max_ticks)
            return decades[::stride]
        if len(decades) >= 3:
            return decades
        fine = [k + math.log10(m) for k in range(low - 1, high + 1) for m in (1, 2, 5)]
        ticks = sorted(t for t in fine if min_ <= t <= max_)
        return ticks if len(ticks) >= 2 else NumericAxisFormatter().get_ticks(min_, max_, max_ticks)

    def get_labels_for_ticks(self, ticks: Sequence[float]) -> list[str]:
        """The values themselves."""
        return [_power(t) for t in ticks]


class PlainFormatter(NumericAxisFormatter):
    """Short numbers: 12k rather than 12000."""

    def get_ticks(self, min_: float, max_: float, max_ticks: int = 8) -> list[float]:
        """Nice intervals; a range of no width has one tick."""
        if not max_ > min_ or max_ - min_ < 1e-5 * max(abs(min_), abs(max_), 1e-300):
            return [(min_ + max_) / 2]
        return super().get_ticks(min_, max_, max_ticks)

    def get_labels_for_ticks(self, ticks: Sequence[float]) -> list[str]:
        """Whole numbers with thousands separators, else short."""
        if ticks and all(float(t).is_integer() and abs(t) < 1e6 for t in ticks):
            return [f"{t:,.0f}" for t in ticks]
        if ticks and max(abs(t) for t in ticks) >= 1e4:
            return [short(t) for t in ticks]
        return super().get_labels_for_ticks(ticks) if len(ticks) > 1 else [short(t) for t in ticks]


def power(exponent: float) -> float:
    """10 to a power, within the range of floats."""
    return float(10.0 ** min(300.0, max(-300.0, exponent)))


def _power(tick: float) -> str:
    value = power(tick)
    if 0.001 <= value < 100_000:
        return f"{value:.6g}"
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")


def dots(line: NDArray[np.float64], size: NDArray[np.int64]) -> NDArray[np.int64]:
    """The dots of a polyline, `[N, 2]`, that lie in a window from 0 to `size` (`[2]`).

    Args:
        line: `[M, 2]`, in dots.
    """
    start, step = line[:-1], np.diff(line, axis=0)
    slope = np.where(step == 0, 1e-300, step)  # avoids a division by zero for a level line
    one, other = -start / slope, (size - start) / slope
    enter = np.minimum(one, other).max(axis=1, initial=0.0)
    leave = np.maximum(one, other).min(axis=1, initial=1.0)
    seen = enter <= leave
    start, step, enter, span = start[seen], step[seen], enter[seen], (leave - enter)[seen]
    counts = np.ceil(np.abs(step).max(axis=1, initial=0.0) * span).astype(np.int64) + 2
    segment = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(segment)) - np.repeat(np.cumsum(counts) - counts, counts)
    along = enter[segment] + span[segment] * within / (counts[segment] - 1)
    cells: NDArray[np.int64] = np.floor(start[segment] + along[:, None] * step[segment]).astype(np.int64)
    return cells[((cells >= 0) & (cells < size)).all(axis=1)]


class Chart(PlotWidget, inherit_bindings=False):
    """A framed chart that redraws only on a visible change.

    Its keys zoom and pan; `r` shows the whole again.
    """

    DEFAULT_CSS = """
    Chart {
        border: round $border;
        border-title-color: $foreground;
        border-title-style: bold;
        border-subtitle-color: $foreground 60%;
        padding: 0;
        &:focus { border: round $primary; }
        &:focus > .plot--axis { color: $foreground 30%; }
        & > .plot--axis { color: $foreground 30%; }
        & > .plot--tick { color: $foreground 55%; text-style: none; }
        &.-zoomed { border-title-color: $accent; }
        & > .plot--label { color: $foreground 55%; text-style: none; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("plus,equals_sign", "zoom_in", "Zoom in", show=False),
        Binding("minus", "zoom_out", "Zoom out", show=False),
        Binding("left", "pan_left", "Left", show=False),
        Binding("right", "pan_right", "Right", show=False),
        Binding("up", "pan_up", "Up", show=False),
        Binding("down", "pan_down", "Down", show=False),
        Binding("r,0", "reset_scales", "Whole", show=False),
    ]

    margin_top = reactive(0)
    margin_bottom = reactive(1)
    margin_left = reactive(8)
    log_y: reactive[bool] = reactive(False)
    log_x: reactive[bool] = reactive(False)

    def __init__(self, *, id: str | None = None, log_x: bool = False, log_y: bool = False) -> None:
        super().__init__(id=id)
        self.set_reactive(Chart.log_x, log_x)
        self.set_reactive(Chart.log_y, log_y)
        self._lines: tuple[Line, ...] = ()
        self._notches: tuple[Notch, ...] = ()
        self._shade: tuple[float, float] | None = None
        self._drawn: object = None

    def on_mount(self) -> None:
        """Start with plain number formats."""
        super().on_mount()
        self._set_formats()

    def _set_formats(self) -> None:
        self.set_x_formatter(PowerFormatter() if self.log_x else PlainFormatter())
        self.set_y_formatter(PowerFormatter() if self.log_y else PlainFormatter())

    def watch_log_y(self) -> None:
        """Reset the zoom: another axis shows other numbers."""
        self._set_formats()
        self.action_reset_scales()
        self.redraw()

    def _zoom(self, center_x: float, center_y: float, factor: float, zoom_x: bool, zoom_y: bool) -> None:
        """Zoom within the limits."""
        points = [p for line in self._lines for p in self._points(line.curve, self.size.width, None)]
        xs, ys = [p[0] for p in points] or [0.0], [p[1] for p in points] or [0.0]

        def allowed(window: float, drawn: float) -> bool:
            drawn = drawn or FLAT
            return window > NARROWEST * drawn if factor > 0 else window < WIDEST * drawn

        zoom_x = zoom_x and allowed(self._x_max - self._x_min, max(xs) - min(xs))
        zoom_y = zoom_y and allowed(self._y_max - self._y_min, max(ys) - min(ys))
        if zoom_x or zoom_y:
            super()._zoom(center_x, center_y, factor, zoom_x, zoom_y)

    def on_resize(self) -> None:
        """Redraw: more room shows more points."""
        self.redraw()

    def on_plot_widget_scale_changed(self) -> None:
        """Redraw: another part of the curve has its own points."""
        self.redraw()

    @property
    def zoomed(self) -> bool:
        """Whether only a part is shown."""
        return not (self._auto_x_min and self._auto_y_min)

    def show(
        self, lines: Sequence[Line], notches: Sequence[Notch] = (), shade: tuple[float, float] | None = None
    ) -> None:
        """Draw curves; x and y in their own units whatever the axes."""
        self._lines, self._notches, self._shade = tuple(lines), tuple(notches), shade
        self.redraw()

    def redraw(self) -> None:
        """Draw again if anything visible has changed."""
        width, height = self.size.width, self.size.height
        if not self.is_mounted or width < 12 or height < 4:
            return
        window = (self._x_min, self._x_max) if self.zoomed else None
        ready = [(line, self._points(line.curve, width, window)) for line in self._lines]
        key = (
            self._seen(ready, width, height),
            self._notches,
            self._shade,
            width,
            height,
            window,
            self.app.theme,
        )
        if key == self._drawn:
            return
        self._drawn = key
        colours = palette(self.app.current_theme)
        with self.app.batch_update():
            self.clear()
            for line, points in ready:
                if points:
                    xs, ys = [p[0] for p in points], [p[1] for p in points]
                    style = (
                        colours.line(line.tone)
                        if isinstance(line.tone, int)
                        else str(getattr(colours, line.tone))
                    )
                    if line.dots or len(points) == 1:
                        self.scatter(xs, ys, marker="•", marker_style=style)
                    else:
                        self.plot(xs, ys, line_style=style, hires_mode=HiResMode.BRAILLE)
            if not self._needs_canvas_resize:
                self.render()  # now: during the screen's own refresh it would be drawn twice

    def _points(
        self, curve: Curve, width: int, window: tuple[float, float] | None
    ) -> list[tuple[float, float]]:
        if window is not None:
            low, high = (power(w) for w in window) if self.log_x else window
            curve = curve.within(low, high)
        curve = curve.thinned(2 * width)
        points = finite(zip(curve.x, curve.y, strict=True))
        if self.log_x:
            points = [(math.log10(x), y) for x, y in points if x > 0]
        if self.log_y:
            points = [(x, math.log10(y)) for x, y in points if y > 0]
        return points

    def _seen(
        self, ready: Sequence[tuple[Line, list[tuple[float, float]]]], width: int, height: int
    ) -> object:
        """A key that is equal for two states that look the same: the dots of each line."""
        everything = [p for _, points in ready for p in points]
        if not everything:
            return ()
        xs, ys = [p[0] for p in everything], [p[1] for p in everything]
        x0, y0 = min(xs), min(ys)
        dx, dy = (max(xs) - x0) / (2 * width) or 1.0, (max(ys) - y0) / (4 * height) or 1.0
        ends = tuple(float(f"{v:.3g}") for v in (x0, y0, max(xs), max(ys)))
        return ends, tuple(
            (line.tone, frozenset((round((x - x0) / dx), round((y - y0) / dy)) for x, y in points))
            for line, points in ready
        )

    def _render_plot(self) -> None:
        canvas = self.query_one("#plot", Canvas)
        with canvas.batch_refresh():
            self._paint(canvas)

    def _paint(self, canvas: Canvas) -> None:
        if canvas._canvas_size is None or canvas.size.width < 4 or canvas.size.height < 3:
            return
        if not self._datasets:
            canvas.reset()  # no axes without curves
            text = "nothing to draw yet"
            left = max(0, (canvas.size.width - len(text)) // 2)
            canvas.write_text(left, canvas.size.height // 2, f"[dim]{text}[/dim]")
            return
        super()._render_plot()
        right, bottom = self._scale_rectangle.right, self._scale_rectangle.bottom
        for x in range(canvas.size.width):
            canvas.set_pixel(x, 0, " ")
        for y in range(canvas.size.height):
            if right < canvas.size.width:
                canvas.set_pixel(right, y, " ")
        self._paint_shade(canvas)
        self._paint_notches(canvas, bottom)

    def _render_line_plot(self, dataset: LinePlot) -> None:
        """Draw all segments at once; textual-plot sets their dots one by one."""
        region = self._scale_rectangle
        low, high = (self._x_min, self._y_max), (self._x_max, self._y_min)
        size = np.array([2 * region.width, 4 * region.height])
        at = size * (np.column_stack((dataset.x, dataset.y)) - low) / np.subtract(high, low)
        columns, rows = dots(at, size).T
        cells = np.zeros((region.height, region.width), dtype=np.uint8)
        np.bitwise_or.at(cells, (rows // 4, columns // 2), DOTS[rows % 4, columns % 2])
        canvas = self.query_one("#plot", Canvas)
        for y, x in np.argwhere(cells):
            char = chr(0x2800 + int(cells[y, x]))
            canvas.set_pixel(region.x + int(x), region.y + int(y), char, dataset.line_style)

    def _paint_shade(self, canvas: Canvas) -> None:
        if self._shade is None:
            return
        low, high = (math.log10(max(v, 1e-12)) if self.log_x else v for v in self._shade)
        left = max(1, self.get_pixel_from_coordinate(max(low, self._x_min), self._y_min)[0])
        right = self.get_pixel_from_coordinate(min(high, self._x_max), self._y_min)[0]
        tint = palette(self.app.current_theme).shade
        for x in range(left, min(right, canvas.size.width - 2) + 1):
            for y in range(1, canvas.size.height - 1):
                char, style = canvas.get_pixel(x, y)
                canvas.set_pixel(x, y, char, f"{style} {tint}" if style else tint)

    def _paint_notches(self, canvas: Canvas, bottom: int) -> None:
        colours = palette(self.app.current_theme)
        for notch in self._notches:
            at = math.log10(notch.x) if self.log_x and notch.x > 0 else notch.x
            if not self._x_min <= at <= self._x_max:
                continue
            x = self.get_pixel_from_coordinate(at, self._y_min)[0]
            style = str(getattr(colours, notch.tone))
            if notch.tall:
                for y in range(1, bottom):
                    if canvas.get_pixel(x, y)[0] == " ":
                        canvas.set_pixel(x, y, "┊", style)
            canvas.set_pixel(x, bottom, notch.sign, style)

    def _render_x_label(self) -> None:
        """The frame's title names the axes."""

    def _render_y_label(self) -> None:
        """The frame's title names the axes."""
