"""Methods compared along their whole curve of adaptation (K.A) against retention (K.R).

One setting proves little: a higher learning rate buys K.A with K.R, and a model that learns nothing
keeps everything. So a method is the set of points it reaches over its learning rates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

Point = tuple[float, float]


def pareto(points: Iterable[Point]) -> list[Point]:
    """The points that no other point beats in both K.A and K.R, by rising K.A."""
    best: list[Point] = []
    for k_a, k_r in sorted(points, key=lambda p: (-p[0], -p[1])):
        if not best or k_r > best[-1][1]:
            best.append((k_a, k_r))
    return best[::-1]


def area(points: Iterable[Point]) -> float:
    """Area that the points dominate, from the origin, in per cent of the 100 x 100 square.

    No interpolation: between two settings a method is only credited with what it reached. The
    untouched base belongs among the points of every method.
    """
    total, left = 0.0, 0.0
    for k_a, k_r in pareto(points):
        total += (k_a - left) * k_r
        left = k_a
    return total / 100.0


def retention_at(points: Sequence[Point], k_a: float) -> float | None:
    """K.R at an adaptation of `k_a`, linear between the neighbours of the Pareto curve.

    Returns:
        None where the method never reaches that adaptation.
    """
    curve = pareto(points)
    if not curve or k_a > curve[-1][0]:
        return None
    if k_a <= curve[0][0]:
        return curve[0][1]
    for (left, high), (right, low) in pairwise(curve):
        if left <= k_a <= right:
            share = (k_a - left) / (right - left) if right > left else 0.0
            return high + share * (low - high)
    return None
