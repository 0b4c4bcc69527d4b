"""A study's report: Markdown for people, CSV and JSON for programs, PNG where matplotlib is."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from kore.io.files import atomic_write, write_json
from kore.studies.method_study.arms import MODEL
from kore.studies.method_study.plan import BASE
from kore.studies.method_study.plot import named, plot_frontier, plot_gains, plot_losses, text_losses
from kore.studies.method_study.tables import CURVE, FIGURES, NESTED, PARTS, flat, gains, names_in, summary
from kore.studies.method_study.trials import NOT_YET

if TYPE_CHECKING:
    from kore.studies.method_study.study import Study
    from kore.studies.method_study.trials import Bench

TITLES = {
    "label": "method",
    "params": "params",
    "cem": "CEM",
    "f1": "F1",
    "k_a": "K.A",
    "k_r": "K.R",
    "avg": "Avg",
    "hars": "HARS",
    "area": "area",
    "lr": "lr",
    "steps": "steps",
    "seeds": "seeds",
}
FOLDER = "report"
MEANT = """K.A is the mean of CEM and F1 on the new knowledge; K.R the mean over the suites of old knowledge
that are not marked near; Avg the mean of both; HARS the harmonic mean of what was gained and kept against the
base."""
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
    trained: dict[str, dict[str, Any]] = {}
    for row in study.rows:
        if row["part"] == "methods" and "losses" in row:
            trained.setdefault(row["label"], row)
    losses = {label: row["losses"] for label, row in trained.items()}
    included = [label for label, row in trained.items() if _penalised(row)]
    value: dict[str, Any] = {
        "v": 1,
        "command": study.command,
        "notes": study.plan.told(),
        "plan": study.plan.model_dump(mode="json"),
        "models": {profile: bench.model for profile, bench in study.benches.items()},
        "table": tables.get("methods", []),
        "tables": tables,
        "gains": gains(tables.get("specific", [])),
        "chosen": study.chosen,
        "tried": study.tried,
        "covariances": study.covariances(),
        "level": study.level,
        "curves": study.curves,
        "missing": study.missing,
        "rows": [{k: v for k, v in r.items() if k != "losses"} for r in study.rows],
        "tuning": [{k: v for k, v in r.items() if k != "losses"} for r in study.tuning],
        "losses": {label: [(s, round(y, 4)) for s, y in curve] for label, curve in losses.items()},
        "penalty_included": included,
        "questions": _counts(study),
        "cases": cases(study.benches[study.plan.profile], study.rows),
    }
    write_json(out / "study.json", value)
    with atomic_write(out / "study.csv") as stream:
        stream.write(_csv(tables))
    with atomic_write(out / "study.md") as stream:
        stream.write("\n".join(markdown(value)) + "\n")
    made = [
        plot_frontier(study, out),
        plot_losses(named(losses, included), out),
        plot_gains(value["gains"], out),
    ]
    files = [out / "study.md", out / "study.csv", out / "study.json", *(p for p in made if p)]
    return {**value, "files": [str(f) for f in files]}


def _counts(study: Study) -> dict[str, int]:
    """How many questions of each suite the base was asked."""
    base = next((r for r in study.rows if r["label"] == BASE), None)
    asked = study.benches[study.plan.profile].verdicts(base) if base else {}
    return dict(Counter(suite for suite, _ in asked))


def _penalised(row: Mapping[str, Any]) -> bool:
    """Whether the row's losses hold a penalty of its method."""
    from kore.methods.base import Method
    from kore.methods.registry import method_class

    adds = method_class(row["trains"]).penalty is not Method.penalty
    return adds and not row.get("penalty_apart")


def _csv(tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    names = [
        "label",
        "params",
        "lr",
        "steps",
        "seeds",
        *(x for n in (*FIGURES, *CURVE) for x in (n, f"{n}_sd")),
    ]
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
    for name in ("area", "params", "lr", "steps"):
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
    steps = f"at most {plan['max_steps']} steps" if plan["max_steps"] else "the profile's epochs"
    asked = f"at most {plan['limit']} a suite" if plan["limit"] else "all there are"
    counts = "".join(f", {suite} {count}" for suite, count in value["questions"].items())
    models = ", ".join(f"{profile} ({model})" for profile, model in value["models"].items())
    notes = [value["notes"].strip(), ""] if value["notes"].strip() else []
    lines = [
        "# Study",
        "",
        *notes,
        f"    {value['command']}",
        "",
        f"{models}; {steps} of each training (column steps: fewer where its epochs ended first). Questions: "
        f"{asked}{counts}. Figures are per cent, of the test split; ± is the standard deviation over seeds. "
        "Rates were chosen on the validation split at seed 0.",
        "",
        MEANT,
        "",
    ]
    for part, rows in tables.items():
        lines += [f"## {PARTS.get(part, f'{part.capitalize()} (table 4)')}", "", *_main(rows, level)]
        if part == "methods":
            lines += [AREA, "", "### By suite (table 2)", "", *_wide(rows, "by_suite")]
            for key, title in (("by_type_cem", "CEM"), ("by_type_f1", "F1")):
                lines += [f"### {title} by type of question (table 9)", "", *_wide(rows, key)]
        elif part.startswith(MODEL):
            lines += ["Not tuned: each row at the profile's own rate.", ""]
        elif part == "ranks":
            lines += ["Not tuned: each row at the rate chosen for kore.", ""]
        elif part == "specific":
            lines += _samples(value["covariances"])
    if value["gains"]:
        titles = {"label": "constraint", "own": "on its own suite", "others": "on the others, mean"}
        names = {n: n for n in names_in(value["gains"], "by_suite")}
        rows = [flat(r, "by_suite") for r in value["gains"]]
        lines += ["### Gain over the general covariance, in points", "", *_grid(rows, {**titles, **names})]
    if value["tuning"]:
        lines += ["## Rates tried (validation split, seed 0)", "", *_tried(value["tried"], plan["further"])]
        lines += _grid(value["tuning"], {"label": "method", "lr": "lr", "k_a": "K.A", "k_r": "K.R"})
        lines += [
            f"Chosen: the best K.R among rates that reach a K.A of {level:.1f}, {plan['target']:.0%} "
            "of the highest; the highest K.A where none does.",
            "",
        ]
    lines += [
        "## Loss",
        "",
        "```",
        *text_losses(named(value["losses"], value["penalty_included"])),
        "```",
        "",
    ]
    if value["cases"]:
        lines += ["## Cases", ""]
        for case in value["cases"]:
            lines += [f"**{case['question']}** ({case['about']}; right: {case['right']})", ""]
            lines += [f"- {name}: {answer}" for name, answer in case["answers"].items()] + [""]
    return lines + _missing(value["missing"])


def _tried(found: Mapping[str, Mapping[str, Any]], further: int) -> list[str]:
    """How many rates each row had to choose from, and whether the best is at their end."""
    rows = [
        {
            "label": label,
            "count": len(t["rates"]),
            "rates": ", ".join(f"{r:g}" + " (diverged)" * (r in t["diverged"]) for r in t["rates"]),
            "lr": t["chosen"],
            "end": t["end"] or ("no" if t["chosen"] is not None else None),
        }
        for label, t in found.items()
    ]
    for row in rows:
        if following := found[row["label"]]["next"]:
            row["end"] = f"{row['end']}; {following:g} not made yet"
    titles = {"label": "method", "count": "tried", "rates": "rates", "lr": "chosen", "end": "at an end"}
    rule = (
        "Where the chosen rate is at an end of those tried, one rate further is tried, by the same rule for "
        f"every row and at most {further} times; then rates are chosen again."
    )
    left = [row["label"] for row in rows if row["end"] in ("lowest", "highest")]
    ends = f" Still at an end, so that a rate further out may be better: {'; '.join(left)}." if left else ""
    return [rule + ends, "", *_grid(rows, titles)]


def _samples(counts: Mapping[str, int]) -> list[str]:
    said = "; ".join(f"{label}: {count}" for label, count in counts.items())
    return (
        [
            "Not tuned: each row at the rate chosen for kore. Samples that each covariance is of, so that "
            f"the general one has more to go by: {said}.",
            "",
        ]
        if counts
        else []
    )


def _missing(found: Mapping[str, str]) -> list[str]:
    if not found:
        return []
    lines = [f"- {name}: {why}" for name, why in found.items() if why != NOT_YET]
    waiting: dict[str, list[str]] = {}
    for name in (n for n, why in found.items() if why == NOT_YET):
        waiting.setdefault(name.partition(" lr=")[0], []).append(name)
    if waiting:
        lines.append(f"- not made yet ({sum(map(len, waiting.values()))}):")
        lines += [f"    - {'; '.join(names)}" for names in waiting.values()]
    return ["## Missing", "", *lines, ""]


def cases(
    bench: Bench, rows: Sequence[Mapping[str, Any]], new: int = 3, old: int = 6
) -> list[dict[str, Any]]:
    """New and old questions on which the methods differ most, suite by suite, with every method's answer."""
    answers = {
        r["label"]: bench.verdicts(r) for r in rows if r["part"] == "methods" and r.get("seed", 0) == 0
    }
    if len(answers) < 2:
        return []
    first = answers.get(BASE) or next(iter(answers.values()))
    fresh = {s.name for s in bench.suites("test") if s.role == "adaptation"}

    def differ(key: tuple[str, str]) -> tuple[float, tuple[str, str]]:
        right = sum((v[key]["score"] or 0) >= 1 for v in answers.values())
        return (abs(right - len(answers) / 2), key)

    shared = sorted(set.intersection(*(set(v) for v in answers.values())), key=differ)
    asked = in_turn([k for k in shared if k[0] in fresh])[:new]
    asked += in_turn([k for k in shared if k[0] not in fresh])[:old]
    return [_case(key[0], first[key], {label: v[key] for label, v in answers.items()}) for key in asked]


def in_turn(keys: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """One of each suite, then the next of each."""
    by_suite: dict[str, list[tuple[str, str]]] = {}
    for key in keys:
        by_suite.setdefault(key[0], []).append(key)
    return [key for turn in zip_longest(*by_suite.values()) for key in turn if key is not None]


def _case(suite: str, verdict: Mapping[str, Any], answers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A question with all its lines, because the options are among them."""
    from kore.evaluation.questions import options_of

    text, right = verdict["question"], verdict["answer"]
    options = options_of(text)
    return {
        "about": suite,
        "question": _line(text.replace("<image>", "")) or "(no text)",
        "right": f"{right}, {options[right]}" if right in options else right,
        "answers": {label: _line(v["prediction"] or "") or "(nothing)" for label, v in answers.items()},
    }


def _line(text: str, longest: int = 400) -> str:
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[:longest]}..."
