"""Pictures from a folder: found by the words of their file names, and of captions.jsonl if there is one."""

from __future__ import annotations

import math
import os
from bisect import bisect_left
from collections import defaultdict
from pathlib import Path

from kore.augment.images.provider import Found
from kore.augment.lexicon import STOP_WORDS
from kore.augment.text import fold
from kore.data.text import words
from kore.errors import MissingArtefact
from kore.io.jsonl import read_jsonl

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff"})
CAPTIONS = "captions.jsonl"


class LocalImages:
    """An index over a folder, read once.

    captions.jsonl holds ``{"file": ..., "caption": ..., "licence"?, "source"?}`` a line, files relative to
    it.

    Args:
        least: share of the query's words that a picture's words must hold, a rare word counting for more than
            a common one: "Mount Everest" is not an image of "Mount Fuji".
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
        weights = {word: self._weight(word) for word in _keys(query)}
        needed = self.least * sum(weights.values()) - 1e-9
        left = sum(weights.values())
        held: dict[int, float] = {}
        for word in sorted(weights, key=lambda w: (-weights[w], w)):
            pictures = self._index.get(word, [])
            if left >= needed:  # what has none of the rarer words may still hold enough
                for number in pictures:
                    held[number] = held.get(number, 0.0) + weights[word]
            else:  # a common word need not be followed to every picture that has it
                for number in held:
                    held[number] += weights[word] * _holds(pictures, number)
            left -= weights[word]
        good = [n for n, weight in held.items() if weight >= needed]
        good.sort(key=lambda n: (-held[n], self._words[n], self._files[n]))
        return [self._found(self._files[n]) for n in good[:count]]

    def _weight(self, word: str) -> float:
        """How much a word tells: the rarer among the pictures, the more."""
        return math.log(1 + len(self._files) / max(1, len(self._index.get(word, ()))))

    def _found(self, file: str) -> Found:
        note = self._notes.get(file, {})
        return Found(str(self.folder / file), note.get("source"), note.get("licence"), note.get("credit"))

    async def close(self) -> None:
        """Nothing to give back."""


def _keys(text: str) -> set[str]:
    return {fold(w) for w in words(text.replace("_", " ").replace("-", " "))} - STOP_WORDS


def _holds(ordered: list[int], number: int) -> bool:
    place = bisect_left(ordered, number)
    return place < len(ordered) and ordered[place] == number
