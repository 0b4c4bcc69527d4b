"""A content-addressed store of teachers' replies: what was paid for once is never paid for again."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from kore.augment.call import Reply


def cache_home() -> Path:
    """Where replies, searches and downloaded pictures are kept: ``$KORE_CACHE``, else the user's cache
    folder."""
    given = os.environ.get("KORE_CACHE")
    return Path(given) if given else Path(platformdirs.user_cache_dir("kore"))


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
