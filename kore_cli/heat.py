"""A matrix as a heat map in half blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence

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


class HeatMap(Widget):
    """Rows of numbers as colours; the scale is logarithmic when the values span decades."""

    DEFAULT_CSS = """
    HeatMap { border: round $border; border-title-color: $foreground; border-title-style: bold;
              border-subtitle-color: $foreground 60%; width: 68; height: 1fr; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._rows: tuple[tuple[float, ...], ...] = ()

    def show(self, rows: Sequence[Sequence[float]]) -> None:
        """Show a matrix; empty clears."""
        new = tuple(tuple(row) for row in rows)
        if new != self._rows:
            self._rows = new
            known = [v for row in new for v in row if math.isfinite(v)]
            self.border_subtitle = (
                f"{min(known):.2g} to {max(known):.2g}" if known else "not written by this covariance"
            )
            self.refresh()

    def render(self) -> RenderResult:
        """Nothing besides the cells."""
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
        columns = len(self._rows[0])
        each = max(1, min(2, width // columns))
        top, bottom = (self._row(2 * lines, 2 * y + i) for i in (0, 1))
        cells = [Segment("▀" * each, Style(color=a, bgcolor=b)) for a, b in zip(top, bottom, strict=False)]
        strip = Strip(Segment.simplify(cells), each * columns)
        return strip.adjust_cell_length(width, base)

    def _row(self, lines: int, index: int) -> list[str]:
        row = self._rows[min(len(self._rows) - 1, index * len(self._rows) // lines)]
        known = [v for r in self._rows for v in r if math.isfinite(v)]
        low, high = min(known), max(known)
        logarithmic = low > 0 and high / low > 1000
        if logarithmic:
            low, high = math.log(low), math.log(high)
        out = []
        for value in row:
            if not math.isfinite(value):
                out.append("#808080")
                continue
            level = ((math.log(value) if logarithmic else value) - low) / ((high - low) or 1.0)
            out.append(RAMP[min(len(RAMP) - 1, max(0, int(level * len(RAMP))))])
        return out
