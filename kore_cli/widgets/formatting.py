"""Numbers for people, and sparklines and bars one character high."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size

_SPARKS = "▁▂▃▄▅▆▇█"


def duration(seconds: float | None) -> str:
    """Two units at most: 45s, 2m10s, 1h02m, 3d04h."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    s = max(0, round(seconds))
    if s < 60:
        return f"{s}s"
    if s < 3600:
        return f"{s // 60}m{s % 60:02d}s"
    if s < 86400:
        return f"{s // 3600}h{s % 3600 // 60:02d}m"
    return f"{s // 86400}d{s % 86400 // 3600:02d}h"


def short(value: float | None) -> str:
    """A number in at most about six characters: 0.4123, 1.2e-4, 12.3k, 4.1M."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "nan"
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 1e9:
        return f"{value / 1e9:.1f}G"
    if size >= 1e6:
        return f"{value / 1e6:.1f}M"
    if size >= 1e4:
        return f"{value / 1e3:.1f}k"
    if size >= 100:
        return f"{value:.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 0.01:
        return f"{value:.3f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def spark(
    values: Sequence[float | None], width: int, low: float | None = None, high: float | None = None
) -> str:
    """The last values as a line of blocks, one column each; a gap where a value is missing.

    More values than columns are averaged over their column.
    """
    if width <= 0 or not values:
        return ""
    columns = _columns(values, width)
    present = [v for v in columns if v is not None]
    if not present:
        return " " * len(columns)
    bottom = min(present) if low is None else low
    span = (max(present) if high is None else high) - bottom
    out = []
    for value in columns:
        if value is None:
            out.append(" ")
        else:
            level = 0.5 if span <= 0 else (value - bottom) / span
            out.append(_SPARKS[min(7, max(0, int(level * 8)))])
    return "".join(out)


def _columns(values: Sequence[float | None], width: int) -> list[float | None]:
    n = len(values)
    if n <= width:
        return [v if v is not None and math.isfinite(v) else None for v in values]
    columns: list[float | None] = []
    for i in range(width):
        part = [
            v for v in values[i * n // width : (i + 1) * n // width] if v is not None and math.isfinite(v)
        ]
        columns.append(sum(part) / len(part) if part else None)
    return columns


def bar(share: float | None, width: int) -> tuple[str, str]:
    """A filled and an empty part, together `width` columns, in halves of a column."""
    if share is None or not math.isfinite(share):
        return "", "─" * width
    halves = round(min(1.0, max(0.0, share)) * width * 2)
    filled = "━" * (halves // 2) + ("╸" if halves % 2 else "")
    return filled, "─" * (width - len(filled))


def fit(text: str, width: int) -> str:
    """One line of at most `width` columns, cut with an ellipsis."""
    line = " ".join(text.split())
    return line if cell_len(line) <= width else set_cell_size(line, max(0, width - 1)) + "…"


def fit_ends(text: str, width: int) -> str:
    """One line of at most `width` columns, cut in the middle: a command keeps its start and end."""
    line = " ".join(text.split())
    first = set_cell_size(line, max(0, 2 * (width - 1) // 5))
    if cell_len(line) <= width:
        return line
    last = set_cell_size(line[::-1], max(0, width - 1 - cell_len(first)))[::-1]
    return f"{first}…{last}"


def padded(text: str, width: int) -> str:
    """One line of `width` columns."""
    return set_cell_size(fit(text, width), max(0, width))
