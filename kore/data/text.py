"""Words and sentences of a text, in any script.

Chinese, Japanese and Thai are written without spaces, so each of their letters counts as a word.
"""

from __future__ import annotations

import re

_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0e7f"
WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+(?:['’.\-][^\W_{_UNSPACED}]+)*")
_ABBREVIATIONS = (
    r"Mr|Mrs|Ms|Dr|Prof|St|Sen|Rep|Gov|Gen|Lt|Col|Jr|Sr|vs|No|Inc|Ltd|Co|Corp|e\.g|i\.e|U\.S|U\.K|a\.m|p\.m"
)
_SENTENCE_END = re.compile(
    r"(?<!\b[A-Z]\.)(?<=[.!?…])[\"'”’)\]]*\s+(?=[\"'“‘(\[]?[^\W_a-z])|(?<=[。！？؟])\s*|\n+"
)
_BULLET = re.compile(r"^[-*•·–]\s+")
_ENDS_SHORT = re.compile(rf"\b(?:{_ABBREVIATIONS})\.$")


def words(text: str) -> list[str]:
    """Words as written; a letter of an unspaced script is a word of its own."""
    return WORD.findall(text)


def length(text: str) -> int:
    """Number of words."""
    return len(words(text))


def sentences(text: str) -> list[str]:
    """Sentences, without bullets; handles English abbreviations and the full stops of other scripts."""
    pieces: list[str] = []
    for piece in (_BULLET.sub("", p.strip()) for p in _SENTENCE_END.split(text)):
        if not piece:
            continue
        if pieces and _ENDS_SHORT.search(pieces[-1]):
            pieces[-1] = f"{pieces[-1]} {piece}"
        else:
            pieces.append(piece)
    return pieces


def clip(text: str, limit: int) -> str:
    """Whole sentences of `text` up to `limit` words; the first one is cut if it alone is longer."""
    kept: list[str] = []
    room = limit
    for sentence in sentences(text):
        size = length(sentence)
        if size > room:
            break
        kept.append(sentence)
        room -= size
    if kept:
        gap = "" if is_unspaced(text) else " "
        return gap.join(kept)
    matches = list(WORD.finditer(text))[:limit]
    if not matches:
        return ""
    cut = text[: matches[-1].end()].rstrip(" ,;:-")
    return cut + ("。" if is_unspaced(text) else ".")


def is_unspaced(text: str) -> bool:
    """Whether most of the text is in a script without spaces."""
    if text.isascii():
        return False
    units = words(text)
    return bool(units) and sum(len(w) == 1 and not w.isascii() for w in units) > len(units) / 2
