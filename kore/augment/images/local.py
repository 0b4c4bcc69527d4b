"""Pictures from a folder: found by the words of their file names, and of captions.jsonl if there is one."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

from kore.augment.images.provider import Found
from kore.augment.lexicon import STOP_WORDS
from kore.augment.text import fold, words
from kore.errors import MissingArtefact
from kore.jsonl import read_jsonl

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff"})
CAPTIONS = "captions.jsonl"


class LocalImages:
    """An index over a folder, read once.

    captions.jsonl holds ``{"file": ..., "caption": ..., "licence"?, "source"?}`` a line, files relative to
    it.

    Args:
        least: share of the query's words that a picture's words must hold.
    """

    remote = False

    def __init__(self, folder: Path, least: float = 0.5) -> None:
        if not folder.is_dir():
            raise MissingArtefact(
                f"no such folder of pictures: {folder}",
                hint="give one as --images local:DIR, or --images none",
            )
        self.folder = folder.resolve()
        self.least = least
        self.name = "local"
        self._files: list[str] = []
        self._notes: dict[str, dict[str, str]] = {}
        self._words: list[int] = []
        self._index: dict[str, list[int]] = defaultdict(list)
        self._read()

    def _read(self) -> None:
        captions = self.folder / CAPTIONS
        if captions.exists():
            for _, line in read_jsonl(captions):
                self._notes[str(line.get("file", ""))] = {k: str(v) for k, v in line.items()}
        for root, _, names in os.walk(self.folder):
            for name in names:
                if Path(name).suffix.lower() in SUFFIXES:
                    self._files.append(os.path.relpath(os.path.join(root, name), self.folder))
        self._files.sort()
        for number, file in enumerate(self._files):
            caption = self._notes.get(file, {}).get("caption", "")
            text = (
                f"{Path(file).with_suffix('')} {caption}".replace("_", " ")
                .replace("-", " ")
                .replace("/", " ")
            )
            distinct = _keys(text)
            self._words.append(len(distinct))
            for word in distinct:
                self._index[word].append(number)

    async def search(self, query: str, count: int) -> list[Found]:
        """Pictures that hold most of the query's words; among equals those with fewer words besides."""
        wanted = _keys(query)
        if not wanted:
            return []
        hits: dict[int, int] = defaultdict(int)
        for word in wanted:
            for number in self._index.get(word, ()):
                hits[number] += 1
        ranked = sorted(hits, key=lambda n: (-hits[n], self._words[n], self._files[n]))
        good = [n for n in ranked if hits[n] >= self.least * len(wanted)][:count]
        return [self._found(self._files[n]) for n in good]

    def _found(self, file: str) -> Found:
        note = self._notes.get(file, {})
        return Found(str(self.folder / file), note.get("source"), note.get("licence"), note.get("credit"))

    async def close(self) -> None:
        """Nothing to give back."""


def _keys(text: str) -> set[str]:
    return {fold(w) for w in words(text.replace("_", " ").replace("-", " "))} - STOP_WORDS
