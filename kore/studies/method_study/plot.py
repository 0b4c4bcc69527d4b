"""A study's curves: PNG through matplotlib where it is installed, characters everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING, Any

import kore.plot as plot
from kore.evaluation.frontier import pareto
from kore.studies.method_study.plan import BASE, WHOLE

if TYPE_CHECKING:
    from kore.studies.method_study.study import Study

WIDTH, HEIGHT = 72, 16
MARKS = "abcdefghijklmnopqrstuvwxyz0123456789+*#"
SHAPES = {WHOLE: "*", BASE: "X"}
Curves = Mapping[str, Sequence[tuple[int, float]]]


def plot_frontier(study: Study, out: Path) -> Path | None:
    """K.A against K.R on the test split: small, every rate at seed 0, a line through those that no other one
    beats; large, the chosen rate at every seed."""
    pyplot = plot.pyplot()
    final = [r for r in study.rows if r["part"] == "methods" and r.get("k_a") is not None]
    if pyplot is None or not final:
        return None
    figure, axes = pyplot.subplots(figsize=(8, 5))
    for index, label in enumerate(dict.fromkeys(r["label"] for r in final)):
        colour = _colour(label, index)
        if len(tried := study.reached.get(label, [])) > 1:
            axes.plot(*zip(*pareto(tried), strict=True), color=colour, alpha=0.5, linewidth=1)
            axes.scatter(*zip(*tried, strict=True), color=colour, alpha=0.5, s=10)
        points = [(r["k_a"], r["k_r"] or 0.0) for r in final if r["label"] == label]
        shape = SHAPES.get(label, "osvD^P"[index % 6])
        size = 160 if label == WHOLE else 50
        axes.scatter(*zip(*points, strict=True), color=colour, label=label, marker=shape, s=size, zorder=3)
    axes.set_title("test split: chosen rates large, the others tried small", fontsize=9)
    axes.set_xlabel("K.A: new knowledge learned")
    axes.set_ylabel("K.R: old knowledge kept")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    axes.grid(alpha=0.3)
    return plot.save(figure, out / "frontier.png")


def _colour(label: str, index: int) -> Any:
    """Twenty different ones, the strong ones first; black for the whole method and grey for the base."""
    from matplotlib import colormaps

    strong = [*range(0, 14, 2), *range(16, 20, 2), *range(1, 14, 2), *range(17, 20, 2)]
    return {WHOLE: "black", BASE: "grey"}.get(label, colormaps["tab20"](strong[index % len(strong)]))


def named(losses: Curves, included: Sequence[str]) -> Curves:
    """The curves, each with its caption: a penalty that was not told apart stands in it."""
    return {f"{n} (its penalty included)" if n in included else n: curve for n, curve in losses.items()}


def plot_losses(losses: Curves, out: Path) -> Path | None:
    """Training loss of every row in one picture, by captions."""
    pyplot = plot.pyplot()
    known = {label: curve for label, curve in losses.items() if curve}
    if pyplot is None or not known:
        return None
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for index, (label, curve) in enumerate(known.items()):
        width = 2 if label == WHOLE else 1
        colour = _colour(label, index + 1)  # as in the other picture, where the base comes first
        axes.plot(*zip(*smoothed(curve), strict=True), label=label, linewidth=width, color=colour)
    axes.set_xlabel("step")
    axes.set_ylabel("loss, smoothed")
    axes.set_yscale("log")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    axes.grid(alpha=0.3)
    return plot.save(figure, out / "losses.png")


def plot_gains(gains: Sequence[Mapping[str, Any]], out: Path) -> Path | None:
    """What each suite's own constraint gains on it, and on the mean of the others (figure 6)."""
    pyplot = plot.pyplot()
    if pyplot is None or not gains:
        return None
    figure, axes = pyplot.subplots(figsize=(7, 4))
    places = range(len(gains))
    axes.bar([i - 0.2 for i in places], [g["own"] or 0 for g in gains], 0.4, label="its own suite")
    axes.bar([i + 0.2 for i in places], [g["others"] or 0 for g in gains], 0.4, label="the others, mean")
    axes.set_xticks(list(places), [g["compared"] for g in gains])
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_xlabel("suite that the covariance is of")
    axes.set_ylabel("points above the general covariance")
    axes.legend(fontsize=8)
    return plot.save(figure, out / "specific.png")


def smoothed(curve: Sequence[tuple[int, float]], share: float = 0.8) -> list[tuple[int, float]]:
    """Exponential moving average."""
    made: list[tuple[int, float]] = []
    for step, loss in curve:
        before = made[-1][1] if made else loss
        made.append((step, share * before + (1 - share) * loss))
    return made


def text_losses(losses: Curves) -> list[str]:
    """The same in characters: one letter per row, a legend below."""
    known = {label: smoothed(curve) for label, curve in losses.items() if curve}
    if not known:
        return ["no losses were kept"]
    heights = [y for curve in known.values() for _, y in curve]
    # one curve far above the others would squash them
    usual = median_low(max(y for _, y in curve) for curve in known.values())
    top, low = min(max(heights), 2 * usual) if usual > 0 else max(heights), min(heights)
    span = top - low or 1.0
    last = max(x for curve in known.values() for x, _ in curve)
    grid = [[" "] * WIDTH for _ in range(HEIGHT)]
    marks = marks_of(known)
    for label, curve in known.items():
        for x, y in curve:
            column = min(WIDTH - 1, int((WIDTH - 1) * x / max(1, last)))
            line = HEIGHT - 1 - int((HEIGHT - 1) * (min(y, top) - low) / span)
            grid[line][column] = marks[label]
    lines = [
        f"{low + span * (HEIGHT - 1 - i) / (HEIGHT - 1):7.2f} |{''.join(cells).rstrip()}"
        for i, cells in enumerate(grid)
    ]
    legend = ", ".join(f"{marks[label]} {label}" for label in known)
    if max(heights) > top:
        lines[0] += "  (and above)"
    return [*lines, f"{'':7} +{'-' * WIDTH} step {last}", legend]


def marks_of(labels: Iterable[str]) -> dict[str, str]:
    """A letter for each row, of its own name where one is left."""
    found: dict[str, str] = {}
    for label in labels:
        free = [c for c in (*label, *MARKS) if c in MARKS and c not in found.values()]
        found[label] = free[0] if free else "?"
    return found
