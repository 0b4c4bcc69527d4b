"""``--data FILE`` or ``-``: standard input and pipes become files, because data is read more than once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from kore.artifacts.run import home
from kore.data.objects import pipe_bytes
from kore.errors import MissingArtefact, UsageError
from kore.io.files import atomic_write, hash_bytes
from kore.io.jsonl import STDIO, is_stream


def spool(data: str | None) -> str:
    """The data as a file: standard input is written to one first, named after its content."""
    return _data_file(data) or _piped(data, home() / "stdin")


@contextmanager
def spooled(data: str | None) -> Iterator[str]:
    """The data as a file that is there inside the block only, where it comes from standard input."""
    if path := _data_file(data):
        yield path
        return
    with TemporaryDirectory(prefix="kore-") as folder:
        yield _piped(data, Path(folder))


def _data_file(data: str | None) -> str | None:
    """The path that `data` names; None where the data is piped.

    Raises:
        UsageError: there is no data. MissingArtefact: no such file.
    """
    if data is None:
        raise UsageError("nothing to train on", hint="name samples with --data FILE, or - for standard input")
    path = Path(data)
    if is_stream(data):
        return None
    if not path.exists():
        raise MissingArtefact(f"no such file: {path}", hint="make samples with: kore augment ITEMS -o FOLDER")
    return str(path)


def _piped(data: str | None, folder: Path) -> str:
    text = sys.stdin.buffer.read() if data in (None, STDIO) else pipe_bytes(Path(data))
    path = folder / f"{hash_bytes(text)}.jsonl"
    if not path.exists():
        with atomic_write(path, "wb") as stream:
            stream.write(text)
    return str(path)
