"""Files that are never half-written, and content hashes."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import IO, Any
from uuid import uuid4

from kore.errors import DataError


def check_place(folder: Path) -> None:
    """Refuse an output folder that could not be made, before any work.

    Raises:
        DataError: a file stands in its way, or it may not be written to.
    """
    there = next(p for p in (folder, *folder.absolute().parents) if os.path.exists(p))
    why = None if os.path.isdir(there) else "a file is in the way"
    if why is None and not os.access(there, os.W_OK | os.X_OK):
        why = "Permission denied"
    if why:
        raise DataError(
            f"cannot write {folder}: {why}", where=str(there), hint="choose another place with -o"
        )


@contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` and rename it into place once the body has succeeded.

    A device or pipe (``/dev/null``, ``/dev/stdout``) is written to as it is: renaming would replace it.

    Raises:
        DataError: the place cannot be written to.
    """
    encoding = None if "b" in mode else "utf-8"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise DataError(f"cannot write {path}: it is a folder", hint="choose another place with -o")
        special = path.exists() and not path.is_file()
        temporary = (
            path if special else path.with_name(f".{path.name[:80]}.{os.getpid()}.{uuid4().hex[:8]}.tmp")
        )
        stream = temporary.open(mode if special else mode.replace("w", "x"), encoding=encoding)
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror}", hint="choose another place with -o"
        ) from error
    if special:
        with stream:
            yield stream
        return
    try:
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def is_leftover(path: Path) -> bool:
    """Whether this is a temporary file that a killed `atomic_write` left behind."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def json_text(value: object, *, indent: int | None = None) -> str:
    """`value` as JSON that any parser reads: non-ASCII kept, numbers that are not finite become null.

    Numpy and torch scalars become plain numbers and paths become text, so that what is written down
    never depends on where a number came from.

    Raises:
        TypeError: something in it has no JSON form.
    """
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError:
        return json.dumps(finite(value), indent=indent, ensure_ascii=False, allow_nan=False)


def finite(value: Any) -> Any:
    """A copy of a JSON-like value with nan and infinities replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    if value is None or isinstance(value, (str, int, bool)):
        return value
    return finite(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    item = getattr(value, "item", None)
    if callable(item):
        try:
            return item()
        except (ValueError, RuntimeError) as error:  # more than one number in it
            raise TypeError(f"not one number: {type(value).__name__}") from error
    raise TypeError(f"has no JSON form: {type(value).__name__}")


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_write(path) as stream:
        stream.write(json_text(value, indent=2) + "\n")


class RepeatedKey(ValueError):
    """A JSON object with a key that occurs twice."""


def parse_json(text: str) -> Any:
    """Parse strict JSON.

    Raises:
        RepeatedKey: an object has a key twice, of which Python would keep the last value.
        ValueError: not JSON, or what Python would take but nothing else does: NaN, Infinity, numbers
            of thousands of digits, nesting without end, halves of surrogate pairs.
    """
    try:
        value = json.loads(text, parse_constant=_refuse, object_pairs_hook=_unique)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if "\\u" in text and not _is_text(value):
        raise ValueError("holds half of a surrogate pair, which is not text")
    return value


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        raise RepeatedKey(f"the key {next(n for n in names if names.count(n) > 1)!r} occurs twice")
    return value


def _is_text(value: object) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def read_json(path: Path) -> Any:
    """Read a JSON file; a broken one is a DataError that says where."""
    try:
        return parse_json(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8 text", where=str(path)) from error
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON: {error.msg}", where=f"{path}:{error.lineno}") from error
    except ValueError as error:
        raise DataError(f"not JSON: {error}", where=str(path)) from error
    except OSError as error:
        raise DataError(f"cannot read: {error.strerror}", where=str(path)) from error


def hash_bytes(data: bytes) -> str:
    """The first 16 hex digits of SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]


def hash_json(value: object) -> str:
    """Hash of a JSON-able value, independent of key order."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hash_bytes(text.encode())


def hash_file(path: Path) -> str:
    """Hash of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()[:16]


def hash_folder(folder: Path, pattern: str = "*") -> str:
    """Hash over the names and bytes of a folder's files that match `pattern`, in name order."""
    files = sorted(p for p in folder.rglob(pattern) if p.is_file() and not is_leftover(p))
    return hash_json([[str(p.relative_to(folder)), hash_file(p)] for p in files])
