"""A study: its command, its state and its first table."""

from __future__ import annotations

from pathlib import Path

from kore.artifacts.manifest import read_manifest
from kore.io.files import read_json
from kore_cli.output import Output
from kore_cli.render.scores import BASE, print_present, score_row

COLUMNS = ("label", "params", "k_a", "k_r", "avg")


def show_study(folder: Path, output: Output) -> None:
    """Print a study's manifest and the table of its report."""
    from kore.studies.method_study.report import FOLDER

    manifest = read_manifest(folder)
    path = folder / FOLDER / "study.json"
    report = read_json(path) if path.is_file() else {}
    rows = [{name: row.get(name) for name in COLUMNS} for row in report.get("table", [])]
    value = {
        "v": 1,
        "folder": str(folder),
        "kind": "study",
        "status": manifest.status,
        "command": manifest.facts.get("command"),
        "report": str(path.with_suffix(".md")) if report else None,
        "missing": list(report.get("missing", [])),
    }
    if not output.human:
        output.record({**value, "table": rows})
        return
    output.facts(value)
    output.line("")
    base = next((row for row in rows if row["label"] == BASE), None)
    print_present(
        output, [{"method": r["label"], "trained": r["params"], **score_row(r, base)} for r in rows]
    )
