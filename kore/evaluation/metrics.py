"""Adaptation metrics: Cover Exact Match and F1 (paper, 5.2.1), for one answer and for many.

Each has two variants: `cem` is the public rule, `cem_clean` forgives stray quotes and symbols; `f1` counts
tokens with repetition (the released script), `f1_set` is the paper's formula over sets.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kore.evaluation.text_normalize import (
    f1_characters,
    f1_words,
    has_spaceless,
    spaceless,
    unquote,
    vqa_normalise,
)


def cem(prediction: str, gold: str) -> float:
    """1 if the normalised gold answer occurs in the normalised prediction between word boundaries.

    A gold answer that starts or ends with a sign such as ``$`` or a quote has no boundary there and can never
    match. One that is empty once normalised matches any prediction with a word, and one in a script without
    spaces matches only between spaces or signs; `measure` uses `cem_clean` for both.
    """
    pattern = rf"\b{re.escape(vqa_normalise(gold))}\b"
    return float(re.search(pattern, vqa_normalise(prediction)) is not None)


def cem_clean(prediction: str, gold: str) -> float:
    """As `cem`, without its blind spots.

    Enclosing quotes and signs at the edges of words are ignored, scripts without spaces are compared
    character by character, and an empty gold answer matches only an empty prediction.
    """
    expected, text = _clean(gold), _clean(prediction)
    if not expected:  # an answer of articles and signs alone, such as the letter A
        expected, text = gold.casefold().strip(), prediction.casefold()
    if not expected:
        return float(not text.strip())
    left = "" if spaceless(expected[0]) else r"(?<!\w)"
    right = "" if spaceless(expected[-1]) else r"(?!\w)"
    if has_spaceless(text):  # a Latin word needs no space beside such a script
        left, right = left and r"(?<![A-Za-z0-9_])", right and r"(?![A-Za-z0-9_])"
    return float(re.search(left + re.escape(expected) + right, text) is not None)


def _clean(text: str) -> str:
    text = unquote(unicodedata.normalize("NFKC", text))
    words = (_bare(word) for word in vqa_normalise(text).split())
    return " ".join(word for word in words if word)


def _bare(word: str) -> str:
    stripped = re.sub(r"^[^\w]+|[^\w]+$", "", word)
    return stripped or word.strip("'\"`‘’“”«»„")


def f1(prediction: str, gold: str) -> float:
    """Harmonic mean of token precision and recall, tokens counted with repetition (released rule).

    If either side has no token: 1 if both are empty, else 0.
    """
    predicted, expected = _tokens(prediction, gold)
    if not predicted or not expected:
        return float(predicted == expected)
    shared = sum((Counter(predicted) & Counter(expected)).values())
    return _harmonic(shared / len(predicted), shared / len(expected))


def f1_set(prediction: str, gold: str) -> float:
    """F1 over the sets of words, as the paper's formula reads (5.2.1)."""
    predicted, expected = map(set, _tokens(prediction, gold))
    if not predicted or not expected:
        return float(predicted == expected)
    shared = len(predicted & expected)
    return _harmonic(shared / len(predicted), shared / len(expected))


def by_character(gold: str) -> bool:
    """Whether this gold answer is compared by character: its script is written without spaces."""
    return has_spaceless(gold)


def _tokens(prediction: str, gold: str) -> tuple[list[str], list[str]]:
    split = f1_characters if by_character(gold) else f1_words
    return split(prediction), split(gold)


def _harmonic(precision: float, recall: float) -> float:
    total = precision + recall
    return 2 * precision * recall / total if total else 0.0


@dataclass(frozen=True)
class Adaptation:
    """All metrics of one answer, each 0 to 1, the best over the gold answers."""

    cem: float
    cem_clean: float
    f1: float
    f1_set: float
    by_character: bool


def measure(prediction: str | None, golds: Sequence[str]) -> Adaptation:
    """Score one prediction (None: missing, counts 0) against the gold answers; the best counts."""
    characters = any(map(by_character, golds))
    if prediction is None or not golds:
        return Adaptation(0.0, 0.0, 0.0, 0.0, characters)

    def best(rule: Callable[[str, str], float]) -> float:
        return max(rule(prediction, gold) for gold in golds)

    def cover(prediction: str, gold: str) -> float:
        public = vqa_normalise(gold) and not by_character(gold)
        return (cem if public else cem_clean)(prediction, gold)

    return Adaptation(best(cover), best(cem_clean), best(f1), best(f1_set), characters)
