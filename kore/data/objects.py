"""Read JSON objects from every form in which data is stored, each with its place. Knows nothing of records.

JSON Lines, a JSON list, Parquet and CSV, each also compressed with gzip; a folder of numbered parts; standard
input; a pipe, as a shell's ``<(command)`` makes it.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from datetime import date, time
from functools import cache
from pathlib import Path
from typing import Any

from kore.errors import DataError
from kore.io.files import hash_bytes, hash_file, hash_json, parse_json
from kore.io.jsonl import STDIO, json_fault, parse_lines

Located = Iterator[tuple[str, dict[str, Any]]]
OnError = Callable[[DataError], None]
FORMS = (".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv")
_PART = re.compile(r"^(?P<stem>.*?)[-_.]?\d+(?:-of-\d+)?$")
_HINT = "KORE reads JSON Lines, a JSON list, Parquet and CSV, also with .gz, and folders of numbered parts"
_OTHER = {
    ".xlsx": "Excel",
    ".xls": "Excel",
    ".zip": "zip",
    ".tar": "tar",
    ".bz2": "bzip2",
    ".xz": "xz",
    ".zst": "Zstandard",
    ".arrow": "Arrow",
    ".feather": "Feather",
    ".yaml": "YAML",
    ".yml": "YAML",
    ".pkl": "pickle",
}
_STRUCTURED = ("facts", "conversations", "messages", "image", "images", "answer")
_ROWS = 64  # of a Parquet file in memory at a time; images may lie in them


def read_objects(source: str | Path, on_error: OnError | None = None) -> Located:
    """Yield ``(where, object)``, where being ``file:line`` or, in a list or a table, ``file[index]``.

    Args:
        source: a file, a folder of parts, a pipe, or ``-`` for standard input.
        on_error: called with the error of each bad object, which is then skipped; without it the first one
            raises.

    Raises:
        DataError: unreadable, of an unknown form, or a bad object.
    """
    if str(source) == STDIO:
        yield from _json(sys.stdin.buffer, "stdin", on_error)
        return
    for path in parts_of(Path(source)):
        if path.is_fifo():
            yield from _json(io.BytesIO(pipe_bytes(path)), str(path), on_error)
        else:
            yield from _file(path, on_error)


def first_object(source: str | Path) -> dict[str, Any]:
    """The first object that can be read; empty where there is none. Not for standard input."""
    return next((value for _, value in read_objects(source, lambda error: None)), {})


def parts_of(source: Path) -> list[Path]:
    """The files of a source: itself, or the numbered parts in a folder.

    Raises:
        DataError: no such file, or a folder in which several things could be meant.
    """
    if not source.exists():
        raise DataError("no such file", where=str(source))
    if not source.is_dir():
        return [source]
    files = sorted(p for p in source.iterdir() if _form(p) in FORMS and not p.name.startswith("."))
    stems = {_stem(path) for path in files}
    if len(files) == 1 or (len(stems) == 1 and None not in stems):
        return files
    if not files:
        raise DataError("a folder without data files", where=str(source), hint=_HINT)
    names = ", ".join(path.name for path in files[:5]) + (", ..." if len(files) > 5 else "")
    raise DataError(
        f"a folder of several data files: {names}",
        where=str(source),
        hint=f"name one of them: {files[0]}; only parts like train-00001.jsonl are read together",
    )


def hash_source(source: Path) -> str:
    """Hash of the bytes of a source's files."""
    if source.is_dir():
        return hash_json([hash_file(path) for path in parts_of(source)])
    return hash_bytes(pipe_bytes(source)) if source.is_fifo() else hash_file(source)


def name_of(source: Path) -> str:
    """A short name for what was read, for folders and suites."""
    if str(source) == STDIO:
        return "stdin"
    bare = source.with_suffix("") if source.suffix.lower() == ".gz" else source
    return "pipe" if source.is_fifo() else bare.stem


def is_records(path: Path) -> bool:
    """Whether a path is meant as a file of records, by its name."""
    return _form(path) in FORMS or path.is_dir() or path.is_fifo()


def pipe_bytes(path: Path) -> bytes:
    """All bytes of a pipe, read once and kept for whoever reads it again."""
    status = path.stat()
    return _drained(str(path), status.st_dev, status.st_ino)


@cache
def _drained(path: str, device: int, inode: int) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read: {error.strerror}", where=path) from error


def _form(path: Path) -> str:
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def _stem(path: Path) -> tuple[str, str] | None:
    """What parts of one data set have in common; None for a file that is not numbered."""
    bare = path.name.split(".")[0]
    matched = _PART.match(bare)
    return (matched["stem"], path.name[len(bare) :]) if matched else None


def _file(path: Path, on_error: OnError | None) -> Located:
    form, name = _form(path), str(path)
    if kind := _OTHER.get(form):
        raise DataError(f"{kind} files are not read", where=name, hint=f"save it as JSON Lines; {_HINT}")
    try:
        stream = path.open("rb")
    except OSError as error:
        raise DataError(f"cannot read: {error.strerror}", where=name) from error
    with stream:
        head = stream.read(4)
        stream.seek(0)
        if head == b"PAR1" or form == ".parquet":
            yield from _parquet(stream, name)
            return
        unpacked = gzip.GzipFile(fileobj=stream) if head[:2] == b"\x1f\x8b" else stream
        try:
            if form in (".csv", ".tsv"):
                yield from _table(unpacked, name, form, on_error)
            else:
                yield from _json(unpacked, name, on_error, listed=form == ".json")
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"cannot unzip: {error}", where=name) from error


def _json(stream: Any, name: str, on_error: OnError | None, *, listed: bool = False) -> Located:
    """JSON Lines, or one JSON list, which begins with a bracket and ends on another line or in objects."""
    first = stream.readline()
    start = first.removeprefix(b"\xef\xbb\xbf").lstrip()
    while not start and first:
        following = stream.readline()
        first, start = first + following, following.lstrip()
        if not following:
            break
    if listed or (start.startswith(b"[") and not _is_scalar_list(start)):
        yield from _list(first + stream.read(), name, on_error, listed)
        return
    yield from parse_lines(_chained(first, stream), name, on_error)


def _chained(first: bytes, stream: Iterable[bytes]) -> Iterator[bytes]:
    yield from io.BytesIO(first)
    yield from stream


def _is_scalar_list(line: bytes) -> bool:
    """Whether a line is a whole list without an object: a fault of JSON Lines, not a file in one line."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return not any(isinstance(inner, dict) for inner in value)


def _list(data: bytes, name: str, on_error: OnError | None, listed: bool) -> Located:
    hint = "a .json file is one JSON list; name it .jsonl if it has a record a line" if listed else None
    try:
        values = parse_json(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON: {error.msg}", where=f"{name}:{error.lineno}", hint=hint) from error
    except ValueError as error:
        raise DataError(json_fault(error), where=name, hint=hint) from error
    if not isinstance(values, list):
        raise DataError("expected a JSON list of records", where=name, hint=hint)
    for index, value in enumerate(values):
        if isinstance(value, dict):
            yield f"{name}[{index}]", value
            continue
        fault = DataError(f"expected a JSON object, found {type(value).__name__}", where=f"{name}[{index}]")
        if on_error is None:
            raise fault
        on_error(fault)


def _table(stream: Any, name: str, form: str, on_error: OnError | None) -> Located:
    """Rows of a table as objects: empty cells are left out, ``facts.KEY`` is one fact, cells of the fields
    that hold lists or objects may be JSON."""
    try:
        text = stream.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8 text", where=name) from error
    header = text.partition("\n")[0]
    delimiter = "\t" if form == ".tsv" else ";" if header.count(";") > header.count(",") else ","
    limit = csv.field_size_limit(sys.maxsize)  # images are long cells
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        for row in rows:
            where = f"{name}:{rows.line_num}"
            try:
                yield where, _row(row, where)
            except DataError as error:
                if on_error is None:
                    raise
                on_error(error)
    except csv.Error as error:
        raise DataError(f"not a table: {error}", where=name) from error
    finally:
        csv.field_size_limit(limit)


def _row(row: dict[Any, Any], where: str) -> dict[str, Any]:
    if None in row:
        raise DataError("more cells than columns", where=where)
    value: dict[str, Any] = {}
    for key, cell in row.items():
        if not cell:
            continue
        if key in _STRUCTURED and cell.lstrip()[:1] in ("[", "{"):
            try:
                cell = parse_json(cell)
            except ValueError as error:
                raise DataError(f"{key}: {json_fault(error)}", where=where) from error
        head, dot, rest = key.partition(".")
        if dot and head == "facts":
            facts = value.setdefault("facts", {})
            if not isinstance(facts, dict):
                raise DataError("facts: a column of its own and columns facts.KEY", where=where)
            facts[rest] = cell
        else:
            value[key] = cell
    return value


def _parquet(stream: Any, name: str) -> Located:
    try:
        from pyarrow import ArrowException, parquet
    except ModuleNotFoundError as error:
        hint = 'pip install "kore-inject[data]"'
        raise DataError("Parquet needs pyarrow, which is not installed", where=name, hint=hint) from error
    index = 0
    try:
        for batch in parquet.ParquetFile(stream).iter_batches(batch_size=_ROWS):
            for row in batch.to_pylist():
                yield f"{name}[{index}]", _plain(row)
                index += 1
    except (ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise DataError(f"not a Parquet file: {reason}", where=name) from error


def _plain(value: Any) -> Any:
    """A cell of Parquet as JSON would have it; a field that is null in a row is one of other rows."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        if value and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):  # a map
            return {key: _plain(inner) for key, inner in value}
        return [_plain(inner) for inner in value]
    return value.isoformat() if isinstance(value, (date, time)) else value
