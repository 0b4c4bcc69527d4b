"""Faults of a question with its answer that need no text to see: no question, an echo, the wrong name."""

from __future__ import annotations

import re

from kore.augment.text import contains, fold, language
from kore.data.records import KnowledgeItem
from kore.data.text import words

LONG = 3  # words of an answer that may only repeat the question
_ASKS = re.compile(
    r"(?:what|which|who|whom|whose|when|where|why|how|is|are|was|were|do|does|did|has|have|had|can|could|will|would|"
    r"should|name|describe|tell|explain|list|give|state|identify|summari[sz]e|in|on|at|by|for|from|to|with|of|under|"
    r"during|according)\b"
)
_MARKS = ("?", "？", "؟", ";")


def pair_faults(question: str, answer: str, item: KnowledgeItem) -> list[str]:
    """What is wrong with a pair whatever the item's text says, in words; nothing if it may be used."""
    asked, said = fold(question).strip(), fold(answer).strip(" .!。！")
    faults = []
    if language(question) == "en" and not asked.endswith(_MARKS) and not _ASKS.match(asked):
        faults.append("not a question")
    if said == asked.strip(" ?？؟.!") or _echoes(asked, said):
        faults.append("the answer repeats the question")
    if said == fold(item.title).strip(" .!") and contains(question, item.title):
        faults.append("the answer is the title, which the question names")
    return faults


def _echoes(asked: str, said: str) -> bool:
    """Whether a longer answer is a piece of the question."""
    answer = words(said)
    return len(answer) >= LONG and f" {' '.join(answer)} " in f" {' '.join(words(asked))} "
