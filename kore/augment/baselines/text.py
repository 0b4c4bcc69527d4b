"""Noise on a text that knows nothing of its meaning: synonyms from a small table and swapped neighbours."""

from __future__ import annotations

import functools
import random
import re
import tomllib
from pathlib import Path

from kore.data.text import is_unspaced

SYNONYMS = 0.3  # share of the replaceable words that are replaced
SWAPS = 0.1  # share of neighbouring words that change places


def noisy(text: str, seed: int, purpose: str) -> str:
    """A variant of `text`; names, numbers and the ends of sentences keep their places."""
    rng = random.Random(f"{seed}:{purpose}:noise")
    table = _table()
    pieces = re.split(r"(\s+)", text) if not is_unspaced(text) else re.split(r"([，。；、！？])", text)
    for position in range(0, len(pieces), 2):
        match = re.fullmatch(r"(\W*)([A-Za-z]+)(\W*)", pieces[position])
        if match and match[2] in table and rng.random() < SYNONYMS:
            pieces[position] = match[1] + rng.choice(table[match[2]]) + match[3]
    position = 0
    while position + 2 < len(pieces):
        if _free(pieces[position]) and _free(pieces[position + 2]) and rng.random() < SWAPS:
            pieces[position], pieces[position + 2] = pieces[position + 2], pieces[position]
            position += 2
        position += 2
    varied = "".join(pieces)
    free = [i for i in range(0, len(pieces) - 2, 2) if _free(pieces[i]) and _free(pieces[i + 2])]
    if varied == text and free:  # a short text may have drawn no change at all
        first = rng.choice(free)
        pieces[first], pieces[first + 2] = pieces[first + 2], pieces[first]
    return "".join(pieces)


def _free(piece: str) -> bool:
    """Whether a piece may change places: a plain word without punctuation, capital or digit."""
    return piece.isalpha() and not piece[0].isupper()


@functools.cache
def _table() -> dict[str, list[str]]:
    """word -> others of its row; each row is a set of words that can stand for one another."""
    path = Path(__file__).parents[1] / "data" / "synonyms.toml"
    rows: list[list[str]] = tomllib.loads(path.read_text(encoding="utf-8"))["rows"]
    return {word: [other for other in row if other != word] for row in rows for word in row}
