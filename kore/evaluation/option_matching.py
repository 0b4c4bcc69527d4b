"""Which option an answer means: VLMEvalKit's rules, in both of their versions.

`vlmeval-688e9da` is what released scores were made with; `vlmeval-2026-06` adds one pattern.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

Compat = Literal["vlmeval-688e9da", "vlmeval-2026-06"]
COMPATS: tuple[Compat, ...] = ("vlmeval-688e9da", "vlmeval-2026-06")
FAILED = "Failed to obtain answer via API"
REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_SEPARATORS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_ANSWER_IS = re.compile(r"answer is\s*(?:\*\*)?\s*([A-D])", re.IGNORECASE)
_LAST_WORDS = 4


def infer(answer: str, options: Mapping[str, str], compat: Compat = "vlmeval-688e9da") -> str | None:
    """The letter an answer means, ``Z`` for a refusal, None if it cannot be told.

    Args:
        options: letter -> text.
    """
    return infer_letter(answer, options, compat) or infer_text(answer, options)


def infer_letter(answer: str, options: Mapping[str, str], compat: Compat = "vlmeval-688e9da") -> str | None:
    """By a letter that stands alone among the last four words, if it is the only option letter."""
    if FAILED in answer:
        return None
    if any(refusal in answer for refusal in REFUSALS):
        return "Z"
    words = answer.translate(_SEPARATORS).split()
    present = [letter for letter in options if letter in words]
    if len(present) == 1 and words.index(present[0]) >= len(words) - _LAST_WORDS:
        return present[0]
    if not present and "Z" in words:
        return "Z"
    if compat == "vlmeval-2026-06" and (match := _ANSWER_IS.search(answer)):
        return match.group(1).upper()
    return None


def infer_text(answer: str, options: Mapping[str, str]) -> str | None:
    """By the one option whose text occurs in the answer, unless that is far longer than all options."""
    answer = answer.lower()
    if len(answer) > 2 * sum(map(len, options.values())):
        return None
    found = [letter for letter, text in options.items() if text.lower() in answer]
    return found[0] if len(found) == 1 else None
