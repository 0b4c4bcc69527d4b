"""What a model answered, kept so that a kill loses at most the batch in flight.

An append-only JSONL file per writing process; each line is keyed by sample, turn, prompt (text and
pictures), model and generation settings, so that a changed question is asked again and an unchanged one
never is. How many processes wrote them does not matter.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from kore.data.task import TaskImage, UserTurn
from kore.io.files import hash_bytes, hash_file, hash_json
from kore.io.jsonl import dump_line, mend_log, read_log

_SYNC_SECONDS = 1.0


@dataclass(frozen=True)
class Key:
    """What one stored answer answers."""

    sample: str
    turn: int
    prompt: str
    model: str
    generation: str

    @property
    def digest(self) -> str:
        """Equal digests: the same question to the same model under the same settings."""
        return hash_json([self.sample, self.turn, self.prompt, self.model, self.generation])


def prompt_hash(
    turns: tuple[UserTurn, ...], replies: tuple[str, ...] = (), known: dict[str, str] | None = None
) -> str:
    """Hash of the conversation so far: user turns, pictures by content, the model's own replies.

    Args:
        known: hashes of picture files by path, read and added to, so that each is read once.
    """
    pictures = [[_picture_hash(p, known) for p in turn.images] for turn in turns]
    return hash_json([[turn.text for turn in turns], pictures, list(replies)])


def _picture_hash(picture: TaskImage, known: dict[str, str] | None) -> str:
    if picture.data is not None:
        return hash_bytes(picture.data)
    if known is not None and picture.path in known:
        return known[picture.path]
    path = Path(picture.path)
    found = hash_file(path) if path.is_file() else "missing"
    if known is not None:
        known[picture.path] = found
    return found


class Predictions:
    """The stored answers of one model to one suite: a folder of append-only files.

    Args:
        folder: where they lie; other processes' files there are read too.
        rank: number of this process among those that write at once.

    Attributes:
        pictures: hashes of picture files seen through it, by path.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.folder = folder
        self.path = folder / f"answers-{rank:03d}.jsonl"
        self._stream: IO[str] | None = None
        self._synced = 0.0
        self.image_hashes: dict[str, str] = {}
        self._texts: dict[str, str] = {}
        self._latest: dict[tuple[str, int], tuple[str, str]] = {}
        self.reload()

    def reload(self) -> None:
        """Read every process's file anew."""
        for path in sorted(self.folder.glob("answers-*.jsonl")):
            for line in read_log(path):
                self._texts[line["key"]] = line["text"]
                self._latest[(line["id"], line["turn"])] = (line["prompt"], line["text"])

    def __len__(self) -> int:
        return len(self._texts)

    def get(self, key: Key) -> str | None:
        """The stored answer, if there is one."""
        return self._texts.get(key.digest)

    def latest(self, sample: str, turn: int) -> tuple[str, str] | None:
        """Prompt hash and text of the last answer to a sample's turn, whatever the model: for
        scoring again without the model at hand."""
        return self._latest.get((sample, turn))

    def put(self, key: Key, text: str) -> None:
        """Append one answer; flushed at once, synced to disk about once a second."""
        if self._stream is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            mend_log(self.path)
            self._stream = self.path.open("a", encoding="utf-8")
        line = {
            "key": key.digest,
            "id": key.sample,
            **{k: v for k, v in key.__dict__.items() if k != "sample"},
        }
        self._stream.write(dump_line({**line, "text": text}))
        self._stream.flush()
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            os.fsync(self._stream.fileno())
            self._synced = time.monotonic()
        self._texts[key.digest] = text
        self._latest[(key.sample, key.turn)] = (key.prompt, text)

    def close(self) -> None:
        """Sync and close the file."""
        if self._stream is not None:
            os.fsync(self._stream.fileno())
            self._stream.close()
            self._stream = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
