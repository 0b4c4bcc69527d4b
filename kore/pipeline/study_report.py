"""A study's tables and plots: Markdown for people, CSV and JSON for programs, PNG where matplotlib is."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kore.files import atomic_write, write_json
from kore.pipeline.study_plot import plot_frontier, plot_losses, text_losses

if TYPE_CHECKING:
    from kore.pipeline.study import Bench, Study

FIGURES = ("cem", "f1", "k_a", "k_r", "k_r_near", "avg", "hars")
TITLES = {
    "label": "method", "params": "params", "cem": "CEM", "f1": "F1", "k_a": "K.A", "k_r": "K.R",
    "k_r_near": "K.R near", "avg": "Avg", "hars": "HARS", "area": "area", "lr": "lr", "seeds": "seeds",
}  # fmt: skip
PARTS = {
    "methods": "Methods (the paper's table 1)",
    "ablation": "Ablations",
    "ranks": "Ranks",
    "augmentation": "Augmentations, with plain LoRA and no constraint (table 6)",
    "specific": "Covariance of one suite alone (table 3 and figure 6)",
}


def summary(rows: Sequence[dict[str, Any]], areas: dict[str, float]) -> list[dict[str, Any]]:
    """One row per label: means over seeds, and the spread (standard deviation) where there are several."""
    made = []
    for label in dict.fromkeys(r["label"] for r in rows):
        mine = [r for r in rows if r["label"] == label]
        value: dict[str, Any] = {"label": label, "params": mine[0].get("params"), "lr": mine[0].get("lr")}
        for name in FIGURES:
            numbers = [r[name] for r in mine if r.get(name) is not None]
            value[name] = statistics.fmean(numbers) if numbers else None
            value[f"{name}_sd"] = statistics.stdev(numbers) if len(numbers) > 1 else None
        value["per_suite"] = _means([r["per_suite"] for r in mine])
        value["by_type"] = _means([r.get("by_type", {}) for r in mine])
        made.append({**value, "area": areas.get(label), "seeds": len(mine)})
    return made


def _means(values: Sequence[dict[str, float | None]]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name in dict.fromkeys(k for v in values for k in v):
        numbers = [x for v in values if (x := v.get(name)) is not None]
        found[name] = statistics.fmean(numbers) if numbers else None
    return found


def write_report(study: Study, bench: Bench) -> dict[str, Any]:
    """Write ``study.md``, ``study.csv``, ``study.json`` and the plots; returns what study.json holds."""
    out, plan = study.out, study.plan
    parts = list(dict.fromkeys(r["part"] for r in study.rows))
    tables = {p: summary([r for r in study.rows if r["part"] == p], study.areas) for p in parts}
    value: dict[str, Any] = {
        "v": 1,
        "plan": plan.model_dump(mode="json"),
        "table": tables.get("methods", []),
        "tables": tables,
        "chosen": study.chosen,
        "areas": study.areas,
        "failed": study.failed,
        "rows": study.rows,
        "tuning": study.tuning,
        "cases": cases(bench),
    }
    write_json(out / "study.json", value)
    with atomic_write(out / "study.csv") as stream:
        stream.write(_csv(tables))
    with atomic_write(out / "study.md") as stream:
        stream.write("\n".join(_markdown(study, tables, value["cases"])) + "\n")
    plots = [p for p in (plot_frontier(study, out), plot_losses(study.losses, out)) if p]
    value["losses"] = text_losses(study.losses)
    value["files"] = [str(out / f) for f in ("study.md", "study.csv", "study.json")] + [str(p) for p in plots]
    return value


def _csv(tables: dict[str, list[dict[str, Any]]]) -> str:
    names = ["label", "params", "lr", "seeds", *(x for n in FIGURES for x in (n, f"{n}_sd")), "area"]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["part", *names])
    for part, rows in tables.items():
        for row in rows:
            writer.writerow([part, *("" if row.get(n) is None else row[n] for n in names)])
    return stream.getvalue()


def _cell(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None:
        return "-"
    if name == "params":
        return f"{value:,}"
    if name == "lr":
        return f"{value:g}"
    if isinstance(value, float):
        spread = row.get(f"{name}_sd")
        return f"{value:.1f}" + (f" ± {spread:.1f}" if spread is not None else "")
    return str(value)


def _grid(rows: list[dict[str, Any]], columns: Sequence[str], titles: Sequence[str]) -> list[str]:
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    return lines + ["| " + " | ".join(_cell(row, c) for c in columns) + " |" for row in rows]


def _wide(rows: list[dict[str, Any]], key: str) -> list[str]:
    names = list(dict.fromkeys(n for row in rows for n in row[key]))
    flat = [{"label": row["label"], **row[key]} for row in rows]
    return _grid(flat, ["label", *names], ["method", *names]) if names else []


def _markdown(
    study: Study, tables: dict[str, list[dict[str, Any]]], shown: list[dict[str, Any]]
) -> list[str]:
    plan = study.plan
    lines = ["# Study", ""]
    steps = f"{plan.max_steps} steps" if plan.max_steps else "the profile's epochs"
    asked = f"at most {plan.limit} questions a suite" if plan.limit else "all questions"
    lines += [f"Profile {plan.profile}, {steps}, {asked}. Figures are per cent; ± is the standard deviation "
              "over seeds.", ""]  # fmt: skip
    for part, rows in tables.items():
        lines += [f"## {PARTS.get(part, part)}", "", *_grid(rows, list(TITLES), list(TITLES.values())), ""]
        if part == "methods":
            lines += ["### By suite (table 2)", "", *_wide(rows, "per_suite"), ""]
            lines += ["### By type of question (table 9)", "", *_wide(rows, "by_type"), ""]
        if part == "specific":
            lines += ["### Its own suite against the others", "", *_wide(rows, "per_suite"), ""]
    if study.tuning:
        tried = _grid(study.tuning, ["label", "lr", "k_a", "k_r"], ["method", "lr", "K.A", "K.R"])
        lines += ["## Rates tried (validation split, seed 0)", "", *tried, ""]
        lines += [f"Chosen: the best K.R among rates that reach {plan.target:.0%} of the best K.A.", ""]
    lines += ["## Loss", "", "```", *text_losses(study.losses), "```", ""]
    if shown:
        lines += ["## Cases", ""]
        for case in shown:
            lines += [f"**{case['question']}** (right: {case['right']})", ""]
            lines += [f"- {name}: {answer}" for name, answer in case["answers"].items()] + [""]
    if study.failed:
        lines += ["## Missing", "", *(f"- {name}: {why}" for name, why in study.failed.items()), ""]
    return lines


def cases(bench: Bench, count: int = 6) -> list[dict[str, Any]]:
    """Questions on which the methods differ most, with every method's answer, from the kept answers."""
    answers: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
    for row in bench.study.rows:
        if row["part"] == "methods" and row.get("seed", 0) == 0:
            answers[row["label"]] = bench.verdicts(row)
    if len(answers) < 2:
        return []
    shared = set.intersection(*(set(v) for v in answers.values()))

    def differ(key: tuple[str, str]) -> tuple[float, tuple[str, str]]:
        right = sum((v[key]["score"] or 0) >= 1 for v in answers.values())
        return (abs(right - len(answers) / 2), key)

    return [
        {
            "about": key[0],
            "question": next(iter(answers.values()))[key]["question"].replace("<image>", "").strip(),
            "right": next(iter(answers.values()))[key]["answer"],
            "answers": {label: v[key]["prediction"] for label, v in answers.items()},
        }
        for key in sorted(shared, key=differ)[:count]
    ]
