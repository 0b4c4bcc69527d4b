"""The capture study's tables and plot: Markdown and terminal for people, CSV and JSON for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kore.plot as plot
from kore.io.files import atomic_write, write_json

COLOURS = {"plain": "#9ca3af", "asvd": "#f97316", "cosvd": "#2563eb", "cosvd-root": "#0d9488"}
STYLES = ("-", "--", ":", "-.")
MEAN = "mean"
RESULT = "capture.json"


@dataclass(frozen=True)
class Table:
    """One figure over decompositions (rows) and dropped components (columns)."""

    title: str
    columns: list[str]
    rows: list[dict[str, Any]]


def tables(value: Mapping[str, Any]) -> list[Table]:
    """A table of scores per suite, their mean where there are several, and the energy lost on each
    covariance's inputs, in per cent."""
    suites = list(value["base"]["scores"])
    means = [MEAN] if len(suites) > 1 else []
    found = []
    for name in [*suites, *means]:
        base = value["base"]["score" if name == MEAN else "scores"]
        at = {"0": base if name == MEAN else base[name]}
        pick = [r["score"] if name == MEAN else r["scores"][name] for r in value["rows"]]
        title = f"score: mean of {', '.join(suites)}" if name == MEAN else f"score: {name}"
        found.append(_table(value, title, pick, at))
    for covariance in value["covariances"]:
        name = covariance["name"]
        pick = [100 * r["lost"][name] for r in value["rows"]]
        found.append(_table(value, f"output energy lost on {name}, %", pick, {}))
    return found


def _table(
    value: Mapping[str, Any], title: str, figures: Sequence[float | None], base: Mapping[str, float | None]
) -> Table:
    rows: dict[tuple[str, str | None], dict[str, Any]] = {}
    for row, figure in zip(value["rows"], figures, strict=True):
        key = (row["method"], row["covariance"])
        first = {"method": key[0], "covariance": key[1], **base}
        rows.setdefault(key, first)[row["components"]] = figure
    columns = ["method", "covariance", *base, *value["settings"]["components"]]
    return Table(title, columns, list(rows.values()))


def files(out: Path) -> list[Path]:
    """The reports of a study that are there."""
    return [path for kind in ("json", "csv", "md", "png") if (path := out / f"capture.{kind}").is_file()]


def write_report(out: Path, value: Mapping[str, Any]) -> None:
    """Write ``capture.csv``, ``.md`` and, where matplotlib is, ``.png``; ``capture.json`` last."""
    drawn = draw(value, out / "capture.png")
    with atomic_write(out / "capture.csv") as stream:
        stream.write(_csv(value))
    with atomic_write(out / "capture.md") as stream:
        stream.write("\n".join(_markdown(value, drawn is not None)) + "\n")
    write_json(out / RESULT, value)


def _csv(value: Mapping[str, Any]) -> str:
    suites = list(value["base"]["scores"])
    names = [c["name"] for c in value["covariances"]]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ["method", "covariance", "components", *suites, "score", *(f"lost on {name}" for name in names)]
    )
    base = {"method": "base", "covariance": None, "components": 0, "lost": {}, **value["base"]}
    for row in [base, *value["rows"]]:
        cells = [row["method"], row["covariance"], row["components"], *(row["scores"][s] for s in suites)]
        cells += [row["score"], *(row["lost"].get(name) for name in names)]
        writer.writerow(["" if cell is None else cell for cell in cells])
    return stream.getvalue()


def _markdown(value: Mapping[str, Any], drawn: bool) -> list[str]:
    model = value["model"]
    version = f", version {model['version']}" if "version" in model else ""
    lines = ["# Capture study", ""]
    if value["command"]:
        lines += ["```sh", value["command"], "```", ""]
    lines += [
        f"Model {model['id']}{version} (fingerprint {model['fingerprint']}). All language linears are "
        "rebuilt without their smallest components; the columns say how many were dropped, 0 is the "
        "untouched model.",
        "",
    ]
    if value["covariances"]:
        columns = ["name", "samples", "tokens"]
        lines += _grid(Table("", columns, value["covariances"]), "{:g}")
    if drawn:
        lines += ["![Scores and lost energy against dropped components](capture.png)", ""]
    for table in tables(value):
        lines += [f"## {table.title[0].upper()}{table.title[1:]}", ""]
        lines += _grid(table, "{:.1f}" if table.title.startswith("score") else "{:.2g}")
    return lines


def _grid(table: Table, form: str) -> list[str]:
    def cell(row: Mapping[str, Any], name: str) -> str:
        figure = row.get(name)
        if isinstance(figure, float):
            return form.format(figure)
        return "-" if figure is None else str(figure)

    lines = ["| " + " | ".join(table.columns) + " |", "|" + "---|" * len(table.columns)]
    lines += ["| " + " | ".join(cell(row, c) for c in table.columns) + " |" for row in table.rows]
    return [*lines, ""]


def draw(value: Mapping[str, Any], path: Path) -> Path | None:
    """One panel per table, a line per decomposition; None without matplotlib."""
    pyplot = plot.pyplot()
    if pyplot is None:
        return None
    found = tables(value)
    across = min(3, len(found))
    down = -(-len(found) // across)
    figure, panels = pyplot.subplots(
        down, across, figsize=(5 * across, 3.8 * down), squeeze=False, layout="constrained"
    )
    names = [c["name"] for c in value["covariances"]]
    for table, axes in zip(found, panels.flat, strict=False):
        steps = table.columns[2:]
        for row in table.rows:
            points = [(i, row[s]) for i, s in enumerate(steps) if row.get(s) is not None]
            style = STYLES[names.index(row["covariance"]) % len(STYLES)] if row["covariance"] else "-"
            label = row["method"] + (f", {row['covariance']}" if row["covariance"] else "")
            colour = COLOURS[row["method"]]
            if points:
                axes.plot(*zip(*points, strict=True), style, color=colour, label=label, marker=".")
        axes.set_xticks(range(len(steps)), steps)
        axes.set_xlabel("components dropped")
        axes.set_title(table.title, fontsize=9)
        if not table.title.startswith("score") and any(r.get(s) for r in table.rows for s in steps):
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
    for axes in panels.flat[len(found) :]:
        axes.set_axis_off()
    panels.flat[0].legend(fontsize=7)
    return plot.save(figure, path)
