"""A study: its command, how far it is, and its first table in short."""

from __future__ import annotations

from pathlib import Path

from kore_cli.output import Output

COLUMNS = ("label", "params", "k_a", "k_r", "avg")


def show_study(folder: Path, output: Output) -> None:
    """Print what a study's manifest and report say."""
    from kore.artifacts.manifest import read_manifest
    from kore.io.files import read_json
    from kore.studies.method_study.report import FOLDER

    manifest = read_manifest(folder)
    path = folder / FOLDER / "study.json"
    found = read_json(path) if path.is_file() else {}
    rows = [{name: row.get(name) for name in COLUMNS} for row in found.get("table", [])]
    told = {
        "v": 1,
        "folder": str(folder),
        "kind": "study",
        "status": manifest.status,
        "command": manifest.facts.get("command"),
        "report": str(path.with_suffix(".md")) if found else None,
        "missing": list(found.get("missing", [])),
    }
    if not output.human:
        output.record({**told, "table": rows})
        return
    for name in ("folder", "kind", "status", "command", "report"):
        if told[name] is not None:
            output.line(f"{name}: {told[name]}")
    if told["missing"]:
        output.line(f"missing: {', '.join(found['missing'])}")
    output.table(rows, COLUMNS)
