"""JSON Lines in and out: one record a line, ``-`` for the standard streams, errors with line numbers.

Knows nothing of what a record means; `kore.data.records` does.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from kore.errors import DataError
from kore.io.files import RepeatedKey, atomic_write, json_text, parse_json

STDIO = "-"


def is_stream(source: str | Path) -> bool:
    """Whether a source can be read once only: standard input, a named pipe, or a shell's ``<(command)``."""
    return str(source) == STDIO or Path(source).is_fifo()


def read_jsonl(
    source: str | Path, *, on_error: Callable[[DataError], None] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ``(where, object)`` for each line of `source`, where being ``file:line``.

    Args:
        source: a path or ``-`` for standard input.
        on_error: called with each bad line's error, which is then skipped; without it the first
            bad line raises.

    Raises:
        DataError: unreadable file, not UTF-8, a line that is not one JSON object, a torn last line.
    """
    if str(source) == STDIO:
        yield from parse_lines(sys.stdin.buffer, "stdin", on_error)
        return
    path = Path(source)
    try:
        stream = path.open("rb")
    except OSError as error:
        raise DataError(f"cannot read: {error.strerror}", where=str(path)) from error
    with stream:
        yield from parse_lines(stream, str(path), on_error)


def parse_lines(
    stream: Iterable[bytes], name: str, on_error: Callable[[DataError], None] | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """As `read_jsonl`, from lines of bytes that `name` names."""
    for number, raw in enumerate(stream, start=1):
        where = f"{name}:{number}"
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        if not raw.strip():
            continue
        try:
            yield where, _parse(raw, where)
        except DataError as error:
            if on_error is None:
                raise
            on_error(error)


def _parse(raw: bytes, where: str) -> dict[str, Any]:
    try:
        value = parse_json(raw.decode("utf-8").rstrip("\r\n"))
    except RepeatedKey as error:
        raise DataError(str(error), where=where) from error
    except ValueError as error:
        if not raw.endswith(b"\n"):
            raise DataError(
                "the last line is cut off", where=where, hint="the file was not written to its end"
            ) from error
        raise DataError(json_fault(error), where=where) from error
    if not isinstance(value, dict):
        raise DataError(f"expected a JSON object, found {type(value).__name__}", where=where)
    return value


def json_fault(error: ValueError) -> str:
    """Why a text was not read as JSON."""
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} (column {error.colno})"
    if isinstance(error, RepeatedKey):
        return str(error)
    if "integer string conversion" in str(error):
        return "not JSON: a number of thousands of digits"
    return f"not JSON: {error}"


def dump_line(value: object) -> str:
    """One JSON line, newline included, non-ASCII kept as it is."""
    return json_text(value) + "\n"


def write_jsonl(target: str | Path, objects: Iterable[object]) -> int:
    """Write objects as lines to a path (atomically) or to ``-``; returns how many."""
    count = 0
    if str(target) == STDIO:
        for value in objects:
            sys.stdout.write(dump_line(value))
            count += 1
        sys.stdout.flush()
        return count
    with atomic_write(Path(target)) as stream:
        for value in objects:
            stream.write(dump_line(value))
            count += 1
    return count


def read_log(path: Path) -> list[dict[str, Any]]:
    """Every whole record of an append-only log; a torn last line is what a kill leaves, so it is
    dropped, a bad line elsewhere is an error."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    return [
        _parse(line + b"\n", f"{path}:{i}") for i, line in enumerate(whole.split(b"\n"), 1) if line.strip()
    ]


def mend_log(path: Path) -> None:
    """Cut a torn last line off an append-only log before more is appended to it."""
    if path.exists():
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with path.open("r+b") as stream:
                stream.truncate(whole)
