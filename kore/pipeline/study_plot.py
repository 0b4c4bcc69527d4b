"""A study's curves: PNG through matplotlib where it is installed, characters everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore import plot
from kore.evaluate.frontier import pareto

if TYPE_CHECKING:
    from kore.pipeline.study import Study

WIDTH, HEIGHT = 72, 16
MARKS = "kolrewxsafmc+*#"
Curves = Mapping[str, Sequence[tuple[int, float]]]


def plot_frontier(study: Study, out: Path) -> Path | None:
    """K.A against K.R: rates on the validation split (lines: what is not beaten), rows of the test split."""
    pyplot = plot.pyplot()
    if pyplot is None:
        return None
    final = [r for r in study.rows if r["part"] == "methods" and r.get("k_a") is not None]
    if not final:
        return None
    figure, axes = pyplot.subplots(figsize=(7, 5))
    for index, label in enumerate(dict.fromkeys(r["label"] for r in final)):
        colour = f"C{index % 10}"
        tried = [(r["k_a"] or 0.0, r["k_r"] or 0.0) for r in study.tuning if r["label"] == label]
        if tried:
            axes.plot(*zip(*pareto(tried), strict=True), color=colour, alpha=0.4)
        points = [(r["k_a"], r["k_r"] or 0.0) for r in final if r["label"] == label]
        axes.scatter(
            *zip(*points, strict=True), color=colour, label=label, marker="*" if label == "kore" else "o"
        )
    axes.set_xlabel("K.A: new knowledge learned")
    axes.set_ylabel("K.R: old knowledge kept")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return plot.save(figure, out / "frontier.png")


def plot_losses(losses: Curves, out: Path) -> Path | None:
    """Training loss of every row in one picture."""
    pyplot = plot.pyplot()
    known = {label: curve for label, curve in losses.items() if curve}
    if pyplot is None or not known:
        return None
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for index, (label, curve) in enumerate(known.items()):
        style = "-" if index < 10 else "--"
        axes.plot(*zip(*smoothed(curve), strict=True), style, label=label, linewidth=1)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.set_yscale("log")
    axes.legend(fontsize=7, ncols=2)
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
    top, low = max(heights), min(heights)
    span = top - low or 1.0
    last = max(x for curve in known.values() for x, _ in curve)
    grid = [[" "] * WIDTH for _ in range(HEIGHT)]
    for mark, curve in zip(MARKS * (1 + len(known) // len(MARKS)), known.values(), strict=False):
        for x, y in curve:
            column = min(WIDTH - 1, int((WIDTH - 1) * x / max(1, last)))
            line = HEIGHT - 1 - int((HEIGHT - 1) * (y - low) / span)
            grid[line][column] = mark
    lines = [
        f"{low + span * (HEIGHT - 1 - i) / (HEIGHT - 1):7.2f} |{''.join(cells).rstrip()}"
        for i, cells in enumerate(grid)
    ]
    legend = ", ".join(f"{m} {label}" for m, label in zip(MARKS * 9, known, strict=False))
    return [*lines, f"{'':7} +{'-' * WIDTH} step {last}", legend]
