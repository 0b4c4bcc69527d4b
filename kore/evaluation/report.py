"""An evaluation's results as files: summary.json, summary.csv, summary.md; and the rows of its table."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kore.artifacts.manifest import versions
from kore.evaluation.runner import BASE, Result
from kore.evaluation.scores import row, table
from kore.io.files import atomic_write, write_json

COLUMNS = ("method", "k_a", "k_r", "k_r_near", "avg", "hars", "cem", "f1")


def summary(results: Mapping[str, Result], **facts: Any) -> dict[str, Any]:
    """Everything that was found, as one object.

    Args:
        results: label -> result; the one labelled ``base`` is what others are compared with.
        facts: protocol, subset, suites asked for: told beside the figures.
    """
    base = results.get(BASE)
    others = {label: r.scored for label, r in results.items() if label != BASE}
    rows = (
        table(base.scored, others) if base else [row(label, found, None) for label, found in others.items()]
    )
    return {
        "table": rows,
        "models": {
            label: {"fingerprint": r.model, "generation": r.generation} for label, r in results.items()
        },
        "suites": {
            name: {
                "facts": _facts(results, name),
                "results": {
                    label: r.scored[name].summary() for label, r in results.items() if name in r.scored
                },
            }
            for name in _suite_names(results)
        },
        "made_by": versions(),
        **facts,
    }


def _suite_names(results: Mapping[str, Result]) -> list[str]:
    return list(dict.fromkeys(name for r in results.values() for name in r.scored))


def _facts(results: Mapping[str, Result], name: str) -> dict[str, Any]:
    return next(r.facts[name] for r in results.values() if name in r.facts)


def suite_rows(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per suite and model: what was scored, by which figure, over how many samples."""
    rows = []
    for name, suite in value["suites"].items():
        for label, found in suite["results"].items():
            rows.append(
                {
                    "suite": name,
                    "model": label,
                    "score": found["headline"],
                    "figure": found["headline_name"],
                    "samples": found["counts"].get("samples"),
                    "missing": found["counts"].get("missing"),
                    "notes": "; ".join(found["notes"]),
                }
            )
    return rows


def item_words(value: Mapping[str, Any]) -> list[str]:
    """One line per model and suite with items: how many were learned, and which to augment again."""
    lines = []
    for name, suite in value["suites"].items():
        for label, found in suite["results"].items():
            if label == BASE or not found["items"]:
                continue
            verdicts = list(found["items"].values())
            told = ", ".join(f"{verdicts.count(word)} {word}" for word in ("learned", "partly", "not"))
            again = [item for item, verdict in found["items"].items() if verdict != "learned"]
            shown = ", ".join(again[:8]) + (f" and {len(again) - 8} more" if len(again) > 8 else "")
            lines.append(f"{name}, items by {label}: {told}" + (f"; augment again: {shown}" if again else ""))
    return lines


def k_r_words(line: Mapping[str, Any]) -> str:
    """K.R with its count, as in ``41.2 (9 of 12)``."""
    return "-" if line.get("k_r") is None else f"{line['k_r']:.1f} ({line['suites']} of {line['of']})"


def write_summary(value: Mapping[str, Any], out: Path) -> None:
    """Write summary.json, summary.csv (one line per figure) and summary.md."""
    write_json(out / "summary.json", value)
    with atomic_write(out / "summary.csv") as stream:
        stream.write(as_csv(value))
    with atomic_write(out / "summary.md") as stream:
        stream.write(as_markdown(value))


def as_csv(value: Mapping[str, Any]) -> str:
    """Every figure on a line of its own: model, suite, figure, value."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("model", "suite", "figure", "value"))
    for line in value["table"]:
        for key in (*COLUMNS[1:], "k_r_dims", "k_r_share", "suites", "of"):
            writer.writerow((line["method"], "", key, _plain(line.get(key))))
    for name, suite in value["suites"].items():
        for label, found in suite["results"].items():
            writer.writerow((label, name, "headline", _plain(found["headline"])))
            for key, number in {**found["metrics"], **found["counts"]}.items():
                writer.writerow((label, name, key, _plain(number)))
    return stream.getvalue()


def _plain(value: Any) -> Any:
    return "" if value is None else value


def as_markdown(value: Mapping[str, Any]) -> str:
    """The two tables and all notes."""
    rows = [{**r, "k_r": k_r_words(r)} for r in value["table"]]
    parts = [
        "# Evaluation",
        "",
        *_grid(rows, COLUMNS),
        "",
        "K.R is the plain mean over the suites counted.",
        "",
    ]
    parts += [
        *_grid(suite_rows(value), ("suite", "model", "score", "figure", "samples", "missing", "notes")),
        "",
    ]
    parts += [f"- {line}" for line in item_words(value)]
    notes = dict.fromkeys(note for r in value["table"] for note in r.get("notes", ()))
    parts += [f"- {note}" for note in notes]
    return "\n".join(parts).rstrip() + "\n"


def _grid(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for line in rows:
        lines.append("| " + " | ".join(_cell(line.get(c)) for c in columns) + " |")
    return lines


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    text = f"{value:.2f}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
