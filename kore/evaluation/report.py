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
SUITE_COLUMNS = ("suite", "model", "score", "figure", "samples", "missing", "notes")


def summary(results: Mapping[str, Result], **facts: Any) -> dict[str, Any]:
    """All results as one object.

    Args:
        results: label -> result; others are compared with the one labelled ``base``.
        facts: protocol, subset, judge, ...: reported beside the figures.
    """
    base = results.get(BASE)
    others = {label: r.scored for label, r in results.items() if label != BASE}
    rows = table(base.scored, others) if base else [row(n, scored, None) for n, scored in others.items()]
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
    """One row per suite and model: score, its figure, number of samples."""
    rows = []
    for name, suite in value["suites"].items():
        for label, result in suite["results"].items():
            rows.append(
                {
                    "suite": name,
                    "model": label,
                    "score": result["headline"],
                    "figure": result["headline_name"],
                    "samples": result["counts"].get("samples"),
                    "missing": result["counts"].get("missing"),
                    "notes": "; ".join(result["notes"]),
                }
            )
    return rows


def item_words(value: Mapping[str, Any]) -> list[str]:
    """One line per model and suite with items: how many were learned, and which to augment again."""
    lines = []
    for name, suite in value["suites"].items():
        for label, result in suite["results"].items():
            if label == BASE or not result["items"]:
                continue
            verdicts = list(result["items"].values())
            counts = ", ".join(f"{verdicts.count(word)} {word}" for word in ("learned", "partly", "not"))
            again = [item for item, verdict in result["items"].items() if verdict != "learned"]
            shown = ", ".join(again[:8]) + (f" and {len(again) - 8} more" if len(again) > 8 else "")
            lines.append(
                f"{name}, items by {label}: {counts}" + (f"; augment again: {shown}" if again else "")
            )
    return lines


def k_r_words(line: Mapping[str, Any]) -> str:
    """K.R with its count, as in ``41.2 (9 of 12)``."""
    return "-" if line.get("k_r") is None else f"{line['k_r']:.1f} ({line['suites']} of {line['of']})"


def table_columns(value: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns of the main table; ``loss_rise`` only where a loss was measured."""
    measured = any(line.get("loss_rise") is not None for line in value["table"])
    return (*COLUMNS, "loss_rise") if measured else COLUMNS


def table_rows(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of the main table, K.R with the number of its suites."""
    return [{**line, "k_r": k_r_words(line)} for line in value["table"]]


def table_notes(value: Mapping[str, Any]) -> list[str]:
    """The notes below the main table, each once."""
    return list(dict.fromkeys(note for line in value["table"] for note in line.get("notes", ())))


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
        for key in (*COLUMNS[1:], "k_r_dims", "k_r_share", "suites", "of", "loss_rise"):
            writer.writerow((line["method"], "", key, _plain(line.get(key))))
    for name, suite in value["suites"].items():
        for label, result in suite["results"].items():
            writer.writerow((label, name, "headline", _plain(result["headline"])))
            for key, number in {**result["metrics"], **result["counts"]}.items():
                writer.writerow((label, name, key, _plain(number)))
    return stream.getvalue()


def _plain(value: Any) -> Any:
    return "" if value is None else value


def as_markdown(value: Mapping[str, Any]) -> str:
    """The two tables and all notes."""
    parts = [
        "# Evaluation",
        "",
        *_grid(table_rows(value), table_columns(value)),
        "",
        "K.R is the plain mean over the suites counted.",
        "",
        *_grid(suite_rows(value), SUITE_COLUMNS),
        "",
        *(f"- {line}" for line in [*item_words(value), *table_notes(value)]),
    ]
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
