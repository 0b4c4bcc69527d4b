"""A curve of bounded size: extremes are kept, the rest is thinned out."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

LIMIT = 4096


@dataclass(frozen=True)
class Curve:
    """Points with rising x; at most `LIMIT` of them.

    Older parts are thinned to the lowest and highest point of each group, so that spikes stay.
    """

    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    def extended(self, points: Sequence[tuple[float, float]]) -> Curve:
        """Add newer points; a point at or before existing ones replaces them (a resumed run)."""
        if not points:
            return self
        xs, ys = list(self.x), list(self.y)
        for x, y in points:
            if xs and x <= xs[-1]:
                keep = _first_not_below(xs, x)
                del xs[keep:], ys[keep:]
            xs.append(x)
            ys.append(y)
            if len(xs) >= 2 * LIMIT:
                xs, ys = thin(xs, ys, LIMIT)
        if len(xs) > LIMIT:
            xs, ys = thin(xs, ys, LIMIT // 2)
        return Curve(tuple(xs), tuple(ys))

    def joined(self, newer: Curve) -> Curve:
        """This curve followed by a newer one."""
        return self.extended(list(zip(newer.x, newer.y, strict=True)))

    def within(self, low: float, high: float) -> Curve:
        """The part with low <= x <= high, and one point beyond each end."""
        start = max(0, _first_not_below(self.x, low) - 1)
        stop = min(len(self.x), _first_not_below(self.x, high) + 1)
        return Curve(self.x[start:stop], self.y[start:stop])

    def thinned(self, count: int) -> Curve:
        """At most `count` points, extremes kept."""
        xs, ys = thin(self.x, self.y, count)
        return Curve(tuple(xs), tuple(ys))

    def smoothed(self, share: float) -> Curve:
        """An exponential average over `share` of the curve's width, to both sides, so that it does not lag.

        Weights depend on distances in x, so that thinned parts are smoothed like full ones.
        """
        if len(self.x) < 3 or share <= 0:
            return self
        # at least a few points, so that short runs are smoothed too
        reach = max((self.x[-1] - self.x[0]) * max(share, 2 / len(self.x)), 1e-12)
        keeps = [math.exp(-(b - a) / reach) for a, b in pairwise(self.x)]
        forward = _swept(self.y, keeps)
        backward = _swept(self.y[::-1], keeps[::-1])[::-1]
        # each point's own weight is in both sweeps: subtract it once
        values = [
            (fv + bv - y) / (fw + bw - 1)
            for (fv, fw), (bv, bw), y in zip(forward, backward, self.y, strict=True)
        ]
        return Curve(self.x, tuple(values))


def _swept(values: Sequence[float], keeps: Sequence[float]) -> list[tuple[float, float]]:
    """Decaying sums of the values and of their weights."""
    total, weight = values[0], 1.0
    out = [(total, weight)]
    for keep, value in zip(keeps, values[1:], strict=True):
        total, weight = keep * total + value, keep * weight + 1.0
        out.append((total, weight))
    return out


def thin(xs: Sequence[float], ys: Sequence[float], count: int) -> tuple[list[float], list[float]]:
    """Lowest and highest point of each of count / 2 groups, in order; first and last points stay."""
    n = len(xs)
    if n <= max(count, 4):
        return list(xs), list(ys)
    groups = max(1, (count - 2) // 2)
    out_x, out_y = [xs[0]], [ys[0]]
    for group in range(groups):
        start, stop = 1 + group * (n - 2) // groups, 1 + (group + 1) * (n - 2) // groups
        if start >= stop:
            continue
        low = min(range(start, stop), key=ys.__getitem__)
        high = max(range(start, stop), key=ys.__getitem__)
        for i in sorted({low, high}):
            out_x.append(xs[i])
            out_y.append(ys[i])
    out_x.append(xs[-1])
    out_y.append(ys[-1])
    return out_x, out_y


def _first_not_below(xs: Sequence[float], x: float) -> int:
    return bisect_left(xs, x)


def finite(points: Iterable[tuple[float, float | None]]) -> list[tuple[float, float]]:
    """The points that can be drawn."""
    return [(x, y) for x, y in points if y is not None and math.isfinite(x) and math.isfinite(y)]
