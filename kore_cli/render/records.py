"""Items, samples and questions in a file: counts, or one of them."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kore.data.forms import is_conversation
from kore.data.objects import read_objects
from kore.data.read import read_record
from kore.data.records import KnowledgeItem, KnowledgeTree, Question, Sample
from kore.errors import DataError
from kore.io.files import read_json
from kore_cli.output import Output


def show_records(path: Path, output: Output, record_id: str | None) -> None:
    """Print what a file of records holds; with `record_id`, print that record.

    Raises:
        DataError: a bad line, or no record of that id.
    """
    kinds: Counter[str] = Counter()
    types: Counter[str] = Counter()
    images: set[str] = set()
    turns = 0
    for where, value in _objects(path):
        name = value.get("id") or value.get("question_id") or (value.get("item") or {}).get("id")
        if record_id is not None:
            if str(name) == record_id:
                output.record(value)
                return
            continue
        kind, record = _read(value, where)
        kinds[kind] += 1
        types[str(value.get("type") or value.get("kind") or "-")] += 1
        images.update(getattr(record, "images", ()))
        turns += len(getattr(record, "conversations", ())) // 2
    if record_id is not None:
        raise DataError(f"no record with the id {record_id!r}", where=str(path))
    if not kinds:
        raise DataError("file is empty", where=str(path))
    value = {
        "v": 1,
        "file": str(path),
        "records": sum(kinds.values()),
        "kind": ", ".join(f"{k}" for k in kinds),
        "images": len(images),
        "rounds": turns or None,
        "types": dict(types.most_common(10)),
    }
    output.result({k: v for k, v in value.items() if v is not None})


def _objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if path.suffix == ".tsv":
        csv.field_size_limit(1 << 30)  # cells may hold encoded images
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
    if path.suffix == ".json" and isinstance(value := read_json(path), dict):
        yield str(path), value
        return
    yield from read_objects(path)


def _read(value: dict[str, Any], where: str) -> tuple[str, Any]:
    if "trunk" in value:
        return "trees", read_record(KnowledgeTree, value, where)
    if is_conversation(value):
        return "samples", read_record(Sample, value, where)
    if "question_id" in value:
        return "questions", read_record(Question, value, where)
    if "title" in value and "text" in value:
        return "items", read_record(KnowledgeItem, value, where)
    return "other records", None
