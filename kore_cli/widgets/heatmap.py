"""A matrix as a heat map in half blocks: a widget of the dashboard, and lines for any terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style
from textual.app import RenderResult
from textual.strip import Strip
from textual.widget import Widget

# dark to light, even steps in lightness, safe for colour blindness (after viridis)
RAMP = (
    "#440154",
    "#482475",
    "#414487",
    "#355f8d",
    "#2a788e",
    "#21918c",
    "#22a884",
    "#44bf70",
    "#7ad151",
    "#bddf26",
    "#fde725",
)
UNKNOWN = "#808080"
# for terminals whose 16 colours are the user's own
RAMP_16 = ("black", "blue", "bright_blue", "cyan", "bright_green", "bright_yellow")
UNKNOWN_16 = "bright_black"
SHADES = " ░▒▓█"
Rows = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Scale:
    """Maps a value to a colour between the lowest and the highest; logarithmic over many decades."""

    low: float
    high: float
    logarithmic: bool

    @staticmethod
    def of(*pictures: Rows, decades: float = 3) -> Scale:
        """One scale for all values of several matrices, logarithmic beyond `decades`."""
        values = [v for rows in pictures for row in rows for v in row if math.isfinite(v)]
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        return Scale(low, high, low > 0 and high / low > 10**decades)

    def level(self, value: float, steps: int) -> int | None:
        """A step from 0 to `steps` - 1; None for what is not a number."""
        if not math.isfinite(value):
            return None
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        share = (value - low) / ((high - low) or 1.0)
        return min(steps - 1, max(0, int(share * steps)))

    def colour(self, value: float, *, sixteen: bool = False) -> str:
        """The value's colour."""
        ramp, unknown = (RAMP_16, UNKNOWN_16) if sixteen else (RAMP, UNKNOWN)
        level = self.level(value, len(ramp))
        return unknown if level is None else ramp[level]


def averaged(rows: Rows, count: int) -> Rows:
    """At most `count` rows, each the weighted mean of those that it replaces."""
    if len(rows) <= count:
        return rows
    size = len(rows) / count
    return [_mean(rows, i * size, (i + 1) * size) for i in range(count)]


def _mean(rows: Rows, start: float, stop: float) -> list[float]:
    parts = [(i, min(stop, i + 1) - max(start, i)) for i in range(int(start), math.ceil(stop - 1e-9))]
    means = []
    for column in range(len(rows[0])):
        values = [(rows[i][column], w) for i, w in parts if math.isfinite(rows[i][column])]
        weight = sum(w for _, w in values)
        means.append(sum(v * w for v, w in values) / weight if weight else math.nan)
    return means


def line(
    rows: Rows,
    scale: Scale,
    lines: int,
    y: int,
    *,
    each: int = 1,
    colour: bool = True,
    sixteen: bool = False,
) -> list[Segment]:
    """Line `y` of a picture that is `lines` high: two rows of the matrix, `each` columns a value.

    Without colour the two rows become the shade of their larger value.
    """
    top, bottom = (rows[min(len(rows) - 1, (2 * y + i) * len(rows) // (2 * lines))] for i in (0, 1))
    if not colour:
        levels = (scale.level(max(a, b), len(SHADES)) for a, b in zip(top, bottom, strict=False))
        return [Segment("".join(("?" if n is None else SHADES[n]) * each for n in levels))]
    cells = (
        Segment(
            "▀" * each,
            Style(color=scale.colour(a, sixteen=sixteen), bgcolor=scale.colour(b, sixteen=sixteen)),
        )
        for a, b in zip(top, bottom, strict=False)
    )
    return list(Segment.simplify(cells))


def side_by_side(
    pictures: Iterable[tuple[str, Rows]], width: int, *, colour: bool = True
) -> list[list[Segment]]:
    """Titled matrices on one logarithmic scale, as many side by side as fit into `width` columns.

    Returns:
        The lines, each a list of segments.
    """
    titled = [(title, rows) for title, rows in pictures if rows]
    if not titled:
        return []
    scale = Scale.of(*(rows for _, rows in titled), decades=0)
    wide = max(len(rows[0]) for _, rows in titled)
    across = max(1, (width + 2) // (wide + 2))
    drawn: list[list[Segment]] = []
    for first in range(0, len(titled), across):
        shown = titled[first : first + across]
        drawn.append([Segment("  ".join(f"{title[:wide]:{wide}}" for title, _ in shown).rstrip())])
        lines = max(math.ceil(len(rows) / 2) for _, rows in shown)
        for y in range(lines):
            cells: list[Segment] = []
            for _, rows in shown:
                cells += line(rows, scale, math.ceil(len(rows) / 2), y, colour=colour)
                cells.append(Segment(" " * (2 + wide - len(rows[0]))))
            drawn.append(cells[:-1])
    return drawn


class HeatMap(Widget):
    """A matrix as colours; the scale is logarithmic when the values span decades."""

    DEFAULT_CSS = """
    HeatMap { border: round $border; border-title-color: $foreground; border-title-style: bold;
              border-subtitle-color: $foreground 60%; width: 68; height: 1fr; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._rows: tuple[tuple[float, ...], ...] = ()
        self._scale = Scale.of()
        self._fitted: tuple[object, Rows] = (None, ())

    def show(self, rows: Rows) -> None:
        """Show a matrix; empty clears."""
        new = tuple(tuple(row) for row in rows)
        if new != self._rows:
            self._rows = new
            self._fitted = (None, ())
            self._scale = scale = Scale.of(new)
            finite = any(math.isfinite(v) for row in new for v in row)
            self.border_subtitle = (
                f"{scale.low:.2g} to {scale.high:.2g}" if finite else "not written by this covariance"
            )
            self.refresh()

    def render(self) -> RenderResult:
        """Nothing: `render_line` draws the cells."""
        return ""

    def render_line(self, y: int) -> Strip:
        """Two rows of the matrix in one line of the terminal."""
        width, height = self.size
        base = self.rich_style
        if not self._rows or not width or not height:
            return Strip.blank(width, base)
        lines = min(height, math.ceil(len(self._rows) / 2))
        if y >= lines:
            return Strip.blank(width, base)
        rows = self._fit(width, 2 * height)
        if not rows:
            return Strip.blank(width, base)
        columns = len(rows[0])
        each = max(1, min(2, width // columns))
        sixteen = self.app.theme.startswith("ansi")
        strip = Strip(line(rows, self._scale, lines, y, each=each, sixteen=sixteen), each * columns)
        return strip.adjust_cell_length(width, base)

    def _fit(self, width: int, height: int) -> Rows:
        """The matrix reduced to the available columns and rows."""
        key = (width, height)
        if self._fitted[0] != key:
            across = averaged(list(zip(*self._rows, strict=False)), width)
            self._fitted = (key, averaged(list(zip(*across, strict=False)), height))
        return self._fitted[1]
