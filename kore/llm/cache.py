"""Caches of replies: what was paid for once is never paid for again.

`ReplyStore` serves many runs and processes, one file a reply; `ReplyLog` belongs to one results folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from kore.io.jsonl import dump_line, mend_log, read_log
from kore.llm.request import Reply


@dataclass(frozen=True)
class ReplyStore:
    """One small file per reply, named by its key.

    A rename makes each appear whole; there is no fsync, so a power cut (not a kill) may lose the last ones,
    and a torn file reads as missing.
    """

    folder: Path

    def get(self, key: str) -> Reply | None:
        """The reply, if it is there and whole."""
        try:
            with open(self._path(key), encoding="utf-8") as stream:
                value = json.load(stream)
            return Reply(value["text"], value["tokens_in"], value["tokens_out"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, key: str, reply: Reply, teacher: str, prompt: str) -> None:
        """Keep a reply, with who gave it and to which prompt."""
        value = {
            "teacher": teacher,
            "prompt": prompt,
            "text": reply.text,
            "tokens_in": reply.tokens_in,
            "tokens_out": reply.tokens_out,
        }
        data = json.dumps(value, ensure_ascii=False).encode()
        path = self._path(key)
        # plain system calls: this runs between calls in flight, and pathlib takes thrice as long
        temporary = f"{path}.{os.getpid()}.tmp"
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        except FileNotFoundError:  # the first of its folder
            os.makedirs(os.path.dirname(path), exist_ok=True)
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        os.replace(temporary, path)

    def _path(self, key: str) -> str:
        return f"{self.folder}/{key[:2]}/{key}.json"


@dataclass
class ReplyLog:
    """An append-only file of replies by key.

    Args:
        path: None keeps the replies in memory.
    """

    path: Path | None = None
    known: dict[str, str] = field(default_factory=dict)
    _loaded: bool = False
    _stream: IO[str] | None = None

    def get(self, key: str) -> str | None:
        """The reply, if there is one; an empty one counts as none."""
        if not self._loaded and self.path is not None:
            self.known |= {line["key"]: line["reply"] for line in read_log(self.path)}
        self._loaded = True
        return self.known.get(key) or None

    def put(self, key: str, reply: str, **facts: str | int) -> None:
        """Keep a reply; inside `appending` it is written at once."""
        self.known[key] = reply
        if self._stream is not None:
            self._stream.write(dump_line({"key": key, **facts, "reply": reply}))
            self._stream.flush()

    @contextmanager
    def appending(self) -> Iterator[None]:
        """Open the file for `put`; synced to disk at the end."""
        if self.path is None:
            yield
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        mend_log(self.path)
        with self.path.open("a", encoding="utf-8") as self._stream:
            try:
                yield
            finally:
                os.fsync(self._stream.fileno())
                self._stream = None
