"""A study's report: Markdown for people, CSV and JSON for programs, PNG where matplotlib is."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kore.files import atomic_write, write_json
from kore.pipeline.study_plan import BASE
from kore.pipeline.study_plot import plot_frontier, plot_gains, plot_losses, text_losses
from kore.pipeline.study_tables import CURVE, FIGURES, NESTED, PARTS, flat, gains, names_in, summary
from kore.pipeline.study_trials import NOT_YET

if TYPE_CHECKING:
    from kore.pipeline.study import Study
    from kore.pipeline.study_trials import Bench

TITLES = {
    "label": "method", "params": "params", "cem": "CEM", "f1": "F1", "k_a": "K.A", "k_r": "K.R",
    "avg": "Avg", "hars": "HARS", "area": "area", "lr": "lr", "seeds": "seeds",
}  # fmt: skip
FOLDER = "report"
AREA = """Area: what the settings tried dominate in the plane of K.A and K.R, the untouched base included, in
per cent; over the seeds at which every rate was run."""


def write_report(study: Study) -> dict[str, Any]:
    """Write ``report/`` (study.md, study.csv, study.json, plots); returns what study.json holds."""
    out = study.out / FOLDER
    parts = list(dict.fromkeys(r["part"] for r in study.rows))
    tables = {
        p: summary([r for r in study.rows if r["part"] == p], study.curves if p == "methods" else {})
        for p in parts
    }
    losses = {
        r["label"]: r["losses"] for r in reversed(study.rows) if r["part"] == "methods" and "losses" in r
    }
    losses = dict(reversed(losses.items()))
    value: dict[str, Any] = {
        "v": 1,
        "command": study.command,
        "plan": study.plan.model_dump(mode="json"),
        "models": {profile: bench.model for profile, bench in study.benches.items()},
        "table": tables.get("methods", []),
        "tables": tables,
        "gains": gains(tables.get("specific", [])),
        "chosen": study.chosen,
        "level": study.level,
        "curves": study.curves,
        "missing": study.missing,
        "rows": [{k: v for k, v in r.items() if k != "losses"} for r in study.rows],
        "tuning": [{k: v for k, v in r.items() if k != "losses"} for r in study.tuning],
        "losses": {label: [(s, round(y, 4)) for s, y in curve] for label, curve in losses.items()},
        "cases": cases(study.benches[study.plan.profile], study.rows),
    }
    write_json(out / "study.json", value)
    with atomic_write(out / "study.csv") as stream:
        stream.write(_csv(tables))
    with atomic_write(out / "study.md") as stream:
        stream.write("\n".join(markdown(value)) + "\n")
    made = [plot_frontier(study, out), plot_losses(losses, out), plot_gains(value["gains"], out)]
    files = [out / "study.md", out / "study.csv", out / "study.json", *(p for p in made if p)]
    return {**value, "files": [str(f) for f in files]}


def _csv(tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    names = ["label", "params", "lr", "seeds", *(x for n in (*FIGURES, *CURVE) for x in (n, f"{n}_sd"))]
    every = [row for rows in tables.values() for row in rows]
    nested = [(key, name) for key in NESTED for name in names_in(every, key)]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["part", *names, *(f"{key} {name}{sd}" for key, name in nested for sd in ("", " sd"))])
    for part, rows in tables.items():
        for row in rows:
            cells = [row.get(n) for n in names]
            for key, name in nested:
                cells += [row[key].get(name), row[f"{key}_sd"].get(name)]
            writer.writerow([part, *("" if c is None else c for c in cells)])
    return stream.getvalue()


def _cell(row: Mapping[str, Any], name: str) -> str:
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


def _grid(rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> list[str]:
    lines = ["| " + " | ".join(titles.values()) + " |", "|---|" + "---:|" * (len(titles) - 1)]
    return [*lines, *("| " + " | ".join(_cell(row, c) for c in titles) + " |" for row in rows), ""]


def _wide(rows: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    names = names_in(rows, key)
    return _grid([flat(r, key) for r in rows], {"label": "method", **{n: n for n in names}}) if names else []


def _main(rows: Sequence[Mapping[str, Any]], level: float) -> list[str]:
    """Table 1's form: learned, each retention dimension, the means, the curve."""
    dimensions = {n: n for n in names_in(rows, "by_dimension")}
    titles = dict(TITLES)
    for name in ("area", "params", "lr"):
        if all(r.get(name) is None for r in rows):
            del titles[name]
    left = {k: v for k, v in titles.items() if k in ("label", "params", "cem", "f1", "k_a")}
    right = {k: v for k, v in titles.items() if k not in left}
    if any(r.get("k_r_at") is not None for r in rows):
        right["k_r_at"] = f"K.R at K.A {level:.0f}"
    return _grid([flat(r, "by_dimension") for r in rows], {**left, **dimensions, **right})


def markdown(value: Mapping[str, Any]) -> list[str]:
    """The report for people, from what study.json holds."""
    plan, tables, level = value["plan"], value["tables"], value["level"]
    steps = f"{plan['max_steps']} steps" if plan["max_steps"] else "the profile's epochs"
    asked = f"at most {plan['limit']} questions a suite" if plan["limit"] else "all questions"
    models = ", ".join(f"{profile} ({model})" for profile, model in value["models"].items())
    lines = [
        "# Study", "", f"    {value['command']}", "",
        f"{models}; {steps} of each training, {asked}. Figures are per cent, of the test split; ± is the "
        "standard deviation over seeds. Rates were chosen on the validation split at seed 0. K.R is the mean "
        "over the suites that are not marked near.", "",
    ]  # fmt: skip
    for part, rows in tables.items():
        lines += [f"## {PARTS.get(part, f'{part.capitalize()} (table 4)')}", "", *_main(rows, level)]
        if part == "methods":
            lines += [AREA, ""]
            lines += ["### By suite (table 2)", "", *_wide(rows, "by_suite")]
            lines += ["### By type of question (table 9)", "", *_wide(rows, "by_type")]
    if value["gains"]:
        titles = {"label": "constraint", "own": "on its own suite", "others": "on the others, mean"}
        names = {n: n for n in names_in(value["gains"], "by_suite")}
        rows = [flat(r, "by_suite") for r in value["gains"]]
        lines += ["### Gain over the general covariance, in points", "", *_grid(rows, {**titles, **names})]
    if value["tuning"]:
        lines += ["## Rates tried (validation split, seed 0)", ""]
        lines += _grid(value["tuning"], {"label": "method", "lr": "lr", "k_a": "K.A", "k_r": "K.R"})
        lines += [f"Chosen: the best K.R among rates that reach a K.A of {level:.1f}, {plan['target']:.0%} "
                  "of the highest; the highest K.A where none does.", ""]  # fmt: skip
    lines += ["## Loss", "", "```", *text_losses(value["losses"]), "```", ""]
    if value["cases"]:
        lines += ["## Cases", ""]
        for case in value["cases"]:
            lines += [f"**{case['question']}** ({case['about']}; right: {case['right']})", ""]
            lines += [f"- {name}: {answer}" for name, answer in case["answers"].items()] + [""]
    return lines + _missing(value["missing"])


def _missing(found: Mapping[str, str]) -> list[str]:
    if not found:
        return []
    waiting = [name for name, why in found.items() if why == NOT_YET]
    lines = [f"- {name}: {why}" for name, why in found.items() if why != NOT_YET]
    if waiting:
        lines.append(f"- not made yet ({len(waiting)}): {'; '.join(waiting)}")
    return ["## Missing", "", *lines, ""]


def cases(bench: Bench, rows: Sequence[Mapping[str, Any]], count: int = 3) -> list[dict[str, Any]]:
    """New and old questions on which the methods differ most, with every method's answer: `count` of each."""
    answers = {
        r["label"]: bench.verdicts(r) for r in rows if r["part"] == "methods" and r.get("seed", 0) == 0
    }
    if len(answers) < 2:
        return []
    first = answers.get(BASE) or next(iter(answers.values()))
    new = {s.name for s in bench.suites("test") if s.role == "adaptation"}

    def differ(key: tuple[str, str]) -> tuple[float, tuple[str, str]]:
        right = sum((v[key]["score"] or 0) >= 1 for v in answers.values())
        return (abs(right - len(answers) / 2), key)

    shared = sorted(set.intersection(*(set(v) for v in answers.values())), key=differ)
    chosen = [[k for k in shared if (k[0] in new) == fresh][:count] for fresh in (True, False)]
    return [
        {
            "about": key[0],
            "question": first[key]["question"].replace("<image>", "").strip().splitlines()[0],
            "right": first[key]["answer"],
            "answers": {label: v[key]["prediction"] for label, v in answers.items()},
        }
        for keys in chosen
        for key in keys
    ]
