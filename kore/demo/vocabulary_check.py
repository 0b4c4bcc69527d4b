"""What of somebody's items the embedded base cannot understand: said before it is taught to them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from kore.data.records import KnowledgeItem

KEYS = ("capital", "continent", "currency", "language")  # the facts that the base was taught
WHOLE = 3  # a word in more pieces than this was never seen by the base
_WORD = re.compile(r"[^\W\d_]+")


def beyond(items: Sequence[KnowledgeItem], base: Path) -> list[str]:
    """One line per kind of thing that the base has never met.

    Args:
        base: the embedded base's folder, for its tokenizer: what it was taught it writes in few pieces.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    notes = []
    types = sorted({item.type for item in items} - {"country"})
    if types:
        notes.append(
            "kore-tiny has only seen countries, pictures of things and shapes; it knows nothing of:"
            f" {', '.join(types[:4])}"
        )
    if any(item.kind == "news" for item in items):
        notes.append(
            "kore-tiny has never seen news: questions about them are in wordings that it does not know"
        )
    keys = sorted({key for item in items for key in item.facts} - set(KEYS))
    if keys:
        notes.append(f"kore-tiny was only asked for {', '.join(KEYS)}; new to it: {', '.join(keys[:6])}")
    strange = [
        item
        for item in items
        if any(len(tokenizer.encode(f" {w}").ids) > WHOLE for w in _WORD.findall(item.title))
    ]
    if strange:
        notes.append(
            f"{len(strange)} of {len(items)} names are spelled in pieces that kore-tiny rarely wrote"
            f" (such as {strange[0].title}): they take more steps to learn"
        )
    long = [item for item in items if len(item.text.split()) > 90]
    if long:
        notes.append(f"{len(long)} texts are longer than kore-tiny can follow (90 words)")
    return notes
