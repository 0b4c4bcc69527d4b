"""Read records from files, folders and standard input, with the place of every fault."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from kore.data.forms import IMAGE_KEYS
from kore.data.records import KnowledgeItem, Question, Record, Sample, anchored
from kore.errors import DataError, DataWarning, Faults, MissingArtefact
from kore.io.files import read_json
from kore.io.jsonl import is_stream, parse_lines, read_jsonl

R = TypeVar("R", bound=Record)
OnError = Callable[[DataError], None]
PARTS = ("*.jsonl", "*.jsonl.gz", "*.json", "*.parquet")
# keys that KORE writes, or that published data sets have, beside the fields of a record
_WRITTEN = {
    Sample: {"suite", "messages", "source", "data_source"},
    Question: {"split", "item", "key", "category", "kind"},
    KnowledgeItem: {"category", "url"},
}
_IDS = {Sample: "id", Question: "question_id"}


def read_records(
    kind: type[R],
    source: str | Path,
    *,
    image_root: Path | None = None,
    on_error: OnError | None = None,
) -> Iterator[R]:
    """Read records from JSONL (also ``.gz``), a JSON list, Parquet, a folder of these, or ``-``.

    Image paths become absolute: relative ones start from `image_root`, else from the file's folder, else
    (standard input) from the working folder. A sample or question without an id is named by its file and
    line. Keys that no field takes are kept under ``extra`` and reported once per file as a `DataWarning`.

    Records are yielded as they are read, up to the first fault. From there the rest is only checked, so
    that all faults are reported at once; standard input is read no further than `Faults.SHOWN` faults.

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
    streamed = is_stream(name)
    if not streamed and not Path(name).exists():
        raise DataError("no such file", where=name)
    root = image_root.absolute() if image_root else None
    root = root or (Path.cwd() if streamed else _folder(Path(name).resolve()))
    faults = Faults()

    def collect(error: DataError) -> None:
        faults.add(error)
        if streamed and faults.count == Faults.SHOWN:
            faults.check()

    take = on_error or collect
    unused: dict[str, None] = {}
    empty = True
    for where, value in _objects(name, take):
        empty = False
        try:
            record = kind.from_json(_with_id(kind, value, where), where)
        except DataError as error:
            take(error)
            continue
        unused.update(dict.fromkeys(record.extra))
        if not faults.count:
            yield where, anchored(record, root)
    faults.check()
    if empty:
        raise DataError("holds no record", where=name)
    _report_unused(kind, name, list(unused))


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _with_id(kind: type[Record], value: dict[str, Any], where: str) -> dict[str, Any]:
    """The object with an id: a sample or question without one is named by its place."""
    key = _IDS.get(kind)
    if key is None or value.get(key) is not None:
        return value
    return {key: Path(where).name, **{k: v for k, v in value.items() if k != key}}


def _report_unused(kind: type[Record], name: str, keys: list[str]) -> None:
    """Warn of keys that no field takes, with the field that was perhaps meant."""
    written = _WRITTEN.get(kind)
    if written is None:
        return
    fields = [*kind.model_fields, *IMAGE_KEYS]
    texts = []
    for key in keys:
        if key in written:
            continue
        near = get_close_matches(key.lower(), fields, n=1, cutoff=0.75)
        texts.append(f"{key} (did you mean {near[0]}?)" if near else key)
    if texts:
        warnings.warn(f"{name}: keys that are not used: {', '.join(texts)}", DataWarning, stacklevel=3)


def _objects(name: str, on_error: OnError) -> Iterator[tuple[str, dict[str, Any]]]:
    path = Path(name)
    if is_stream(name):
        yield from read_jsonl(name, on_error=on_error)
    elif path.is_dir():
        parts = sorted({part for pattern in PARTS for part in path.glob(pattern)})
        if not parts:
            raise DataError(f"a folder without {', '.join(PARTS)}", where=name)
        for part in parts:
            yield from _objects(str(part), on_error)
    elif path.suffix == ".gz":
        yield from _unzipped(name, on_error)
    elif path.suffix == ".parquet":
        yield from _parquet(path)
    elif path.suffix in (".csv", ".tsv", ".xlsx"):
        raise DataError(
            "a table, not records",
            where=name,
            hint="convert it to JSONL, one JSON object a line",
        )
    elif path.suffix == ".json" or _starts_with_list(path):
        yield from _listed(name, on_error)
    else:
        yield from read_jsonl(name, on_error=on_error)


def _starts_with_list(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["
    except OSError:
        return False


def _listed(name: str, on_error: OnError) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        values = read_json(Path(name))
    except DataError as error:
        error.hint = "a .json file is one JSON list; name it .jsonl if it has a record a line"
        raise
    if not isinstance(values, list):
        raise DataError("expected a JSON list of records", where=name)
    for index, value in enumerate(values):
        where = f"{name}[{index}]"
        if isinstance(value, dict):
            yield where, value
        else:
            on_error(DataError(f"expected a JSON object, found {type(value).__name__}", where=where))


def _unzipped(name: str, on_error: OnError) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with gzip.open(name, "rb") as stream:
            yield from parse_lines(cast(IO[bytes], stream), name, on_error)
    except (OSError, EOFError) as error:
        raise DataError(f"cannot unzip: {error}", where=name) from error


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingArtefact(
            "reading Parquet files needs pyarrow", where=str(path), hint="pip install 'kore-inject[data]'"
        ) from error
    try:
        with parquet.ParquetFile(path) as table:
            number = 0
            for batch in table.iter_batches(batch_size=64):
                for row in batch.to_pylist():
                    yield f"{path}[{number}]", row
                    number += 1
    except (OSError, ValueError) as error:
        raise DataError(f"not a Parquet file: {error}", where=str(path)) from error
