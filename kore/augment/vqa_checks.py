"""The subject of a visual question: checked in code, then shown instead of named (paper, 4.2.1 step 5)."""

from __future__ import annotations

import re

from kore.augment.text import contains, fold
from kore.data.text import is_unspaced, words

PLACE = "{s}"
MOST_WORDS = 8  # an answer is a word or a phrase


def subject_faults(question: str, answer: str, subject: str, hypernym: str) -> list[str]:
    """What is wrong with a quadruplet, in words; nothing if it may be used.

    The subject must be named in the question and must not be the answer, and neither may the question give
    the answer away, so that "this <hypernym>" can stand for the subject.
    """
    faults = []
    if not all(text.strip() for text in (question, answer, subject, hypernym)):
        return ["an empty field"]
    if not _named(question, subject):
        faults.append("the question does not name the subject")
    if _same(answer, subject) or contains(answer, subject):
        faults.append("the subject is the answer")
    elif contains(re.sub(re.escape(subject), " ", question, flags=re.IGNORECASE), answer):
        faults.append("the question holds its answer")
    if not is_unspaced(answer) and len(words(answer)) > MOST_WORDS:
        faults.append("the answer is longer than a phrase")
    if _same(hypernym, subject):
        faults.append("the hypernym is the subject itself")
    return faults


def pattern_of(question: str, subject: str) -> str:
    """The question with a place where the subject was; a leading article goes with it.

    ``Who shot at Donald Trump?`` becomes ``Who shot at {s}?``.
    """
    found = re.compile(rf"(?:\b(?:the|a|an)\s+)?{_loose(subject)}", re.IGNORECASE)
    return found.sub(PLACE, question, count=1)


def _named(question: str, subject: str) -> bool:
    return re.search(_loose(subject), question, re.IGNORECASE) is not None


def _loose(subject: str) -> str:
    """The subject as a regular expression: any spacing, whole words where words have edges."""
    inner = r"\s+".join(re.escape(part) for part in subject.split())
    left = r"(?<!\w)" if subject[:1].isascii() and subject[:1].isalnum() else ""
    right = r"(?!\w)" if subject[-1:].isascii() and subject[-1:].isalnum() else ""
    return left + inner + right


def _same(a: str, b: str) -> bool:
    return [fold(w) for w in words(a)] == [fold(w) for w in words(b)]
