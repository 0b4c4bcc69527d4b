"""Items, samples and questions in a file: counts, or one of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from kore_cli.output import Output


def show_records(path: Path, output: Output, wanted: str | None) -> None:
    """Say what a file of records holds; with `wanted`, print that record.

    Raises:
        DataError: a bad line, or no record of that id.
    """
    from kore.errors import DataError

    kinds: Counter[str] = Counter()
    types: Counter[str] = Counter()
    pictures: set[str] = set()
    turns = 0
    for where, value in _objects(path):
        name = value.get("id") or value.get("question_id") or (value.get("item") or {}).get("id")
        if wanted is not None:
            if str(name) == wanted:
                output.record(value)
                return
            continue
        kind, record = _read(value, where)
        kinds[kind] += 1
        types[str(value.get("type") or value.get("kind") or "-")] += 1
        pictures.update(getattr(record, "images", ()))
        turns += len(getattr(record, "conversations", ())) // 2
    if wanted is not None:
        raise DataError(f"no record with the id {wanted!r}", where=str(path))
    if not kinds:
        raise DataError("holds no record", where=str(path))
    value = {
        "v": 1,
        "file": str(path),
        "records": sum(kinds.values()),
        "kind": ", ".join(f"{k}" for k in kinds),
        "images": len(pictures),
        "rounds": turns or None,
        "types": dict(types.most_common(10)),
    }
    shown = {k: v for k, v in value.items() if v is not None}
    output.result(shown, "\n".join(f"{k}: {_plain(v)}" for k, v in shown.items() if k != "v"))


def _objects(path: Path) -> Any:
    from kore.errors import DataError
    from kore.io.files import read_json
    from kore.io.jsonl import read_jsonl

    if path.suffix == ".tsv":
        import csv

        csv.field_size_limit(1 << 30)  # pictures stand in their cells
        with path.open(encoding="utf-8", newline="") as stream:
            for number, row in enumerate(csv.DictReader(stream, delimiter="\t"), start=2):
                yield (
                    f"{path}:{number}",
                    {
                        "question_id": row.get("index"),
                        "text": row.get("question"),
                        "answer": row.get("answer") or "",
                        "type": row.get("category") or "other",
                    },
                )
        return
    if path.suffix == ".json":
        values = read_json(path)
        if isinstance(values, dict):
            values = [values]
        if not isinstance(values, list):
            raise DataError("expected a JSON list of records", where=str(path))
        yield from ((f"{path}[{i}]", v) for i, v in enumerate(values) if isinstance(v, dict))
        return
    yield from read_jsonl(path)


def _read(value: dict[str, Any], where: str) -> tuple[str, Any]:
    from kore.data.records import KnowledgeItem, KnowledgeTree, Question, Sample

    if "trunk" in value:
        return "trees", KnowledgeTree.from_json(value, where)
    if "conversations" in value or "messages" in value:
        return "samples", Sample.from_json(value, where)
    if "question_id" in value:
        return "questions", Question.from_json(value, where)
    if "title" in value and "text" in value:
        return "items", KnowledgeItem.from_json(value, where)
    return "other records", None


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v:,}" if isinstance(v, int) else f"{k} {v}" for k, v in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)
