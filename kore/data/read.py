"""Read records from files, folders, pipes and standard input, with the place of every fault."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from kore.data.forms import IMAGE_KEYS
from kore.data.objects import read_objects
from kore.data.records import KnowledgeItem, Question, Record, Sample, anchored
from kore.errors import DataError, DataWarning, Faults
from kore.io.jsonl import is_stream

R = TypeVar("R", bound=Record)
_WARNED: set[str] = set()
OnError = Callable[[DataError], None]
# keys that are read or written beside the fields of a record, or that published data sets have
_BESIDE: dict[type[Record], frozenset[str]] = {
    KnowledgeItem: frozenset(("category", "url", "question")),
    Question: frozenset(("id", "split", "item", "item_id", "key", "category", "kind")),
    Sample: frozenset(
        (
            *("messages", "suite", "split", "source", "data_source"),
            *("title", "name", "entity_name", "type", "cnn_wiki_type"),  # of EVOKE's injection file
        )
    ),
}


def read_records(
    kind: type[R],
    source: str | Path,
    *,
    image_root: Path | None = None,
    on_error: OnError | None = None,
) -> Iterator[R]:
    """Read records from any form that `kore.data.objects.read_objects` reads.

    Image paths become absolute: relative ones start from `image_root`, else from the file's folder, else
    (standard input, a pipe) from the working folder. A sample or question without an id is named by its file
    and line. Keys that no field takes are kept under ``extra`` and reported once per file as a `DataWarning`.

    Records are yielded as they are read, up to the first fault. From there the rest is only checked, so
    that all faults are reported at once; a stream is read no further than `Faults.SHOWN` faults.

    Raises:
        DataError: with ``file:line`` (or ``file[index]``) and the field, unless `on_error` takes it;
            `DataErrors` where there are several.
    """
    for _, record in read_located(kind, source, image_root=image_root, on_error=on_error):
        yield record


def read_located(
    kind: type[R],
    source: str | Path,
    *,
    image_root: Path | None = None,
    on_error: OnError | None = None,
) -> Iterator[tuple[str, R]]:
    """As `read_records`, yielding ``(where, record)``, where being ``file:line`` or ``file[index]``."""
    name = str(source)
    root = image_root.absolute() if image_root else _folder_of(name)
    faults = Faults()

    def collect(error: DataError) -> None:
        faults.add(error)
        if is_stream(name) and faults.count == Faults.SHOWN:
            faults.check()

    take = on_error or collect
    unused: dict[str, None] = {}
    empty = True
    for where, value in read_objects(name, take):
        empty = False
        try:
            record = read_record(kind, value, where)
        except DataError as error:
            take(error)
            continue
        unused.update(dict.fromkeys(_unused(record)))
        _warn_of_null_facts(record, value, where)
        if not faults.count:
            yield where, anchored(record, root)
    _warn_of_unused(kind, name, list(unused))
    faults.check()
    if empty:
        raise DataError("file is empty", where=name)


def check_records(kind: type[Record], *sources: str | Path | None) -> None:
    """Check every record of files that can be read again, before anything heavy is loaded.

    Raises:
        DataError: all faults of the first faulty file, each with its place.
    """
    for source in sources:
        path = Path(source or "")
        if source and (path.is_file() or path.is_dir()):
            deque(read_located(kind, path), maxlen=0)


def read_record(kind: type[R], value: dict[str, Any], where: str) -> R:
    """Validate one object of a file; a sample or question without an id is named by its file and line.

    Raises:
        DataError: naming place and field.
    """
    key = "question_id" if kind is Question else "id"
    if kind in (Sample, Question) and value.get(key) is None:
        given = value.get("id")
        value = {**value, key: Path(where).name if given is None else given}
    return kind.from_json(value, where)


def _folder_of(name: str) -> Path:
    """Where a source's relative image paths start."""
    if is_stream(name):
        return Path.cwd()
    path = Path(name).resolve()
    return path if path.is_dir() else path.parent


def _unused(record: Record) -> list[str]:
    """Keys of a record and its messages that no field takes."""
    beside = _BESIDE.get(type(record))
    if beside is None:
        return []
    messages = record.conversations if isinstance(record, Sample) else ()
    return [k for k in record.extra if k not in beside] + [k for m in messages for k in m.extra]


def _warn_of_unused(kind: type[Record], name: str, keys: list[str]) -> None:
    """Warn of keys that are not used, with the field that was perhaps meant."""
    fields = [field for field in (*kind.model_fields, *IMAGE_KEYS) if field != "extra"]
    texts = []
    for key in keys:
        near = get_close_matches(key.lower(), fields, n=1, cutoff=0.75)
        texts.append(f"{key[:60]} (did you mean {near[0]}?)" if near else key[:60])
    if texts:
        more = f", and {len(texts) - 20} more" if len(texts) > 20 else ""
        text = f"{name}: keys that are not used: {', '.join(texts[:20])}{more}"
        _warn(text)


def _warn_of_null_facts(record: Record, value: dict[str, Any], where: str) -> None:
    facts = value.get("facts") if isinstance(record, KnowledgeItem) else None
    if facts and None in facts.values():
        names = ", ".join(key for key, fact in facts.items() if fact is None)
        _warn(f"{where}: facts without a value are left out: {names}")


def _warn(text: str) -> None:
    """Warn once of the same thing: a command reads its data more than once."""
    if text not in _WARNED:
        _WARNED.add(text)
        warnings.warn(text, DataWarning, stacklevel=4)
