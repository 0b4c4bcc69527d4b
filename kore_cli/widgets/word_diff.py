"""Marks the words that differ between two answers."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from textual.content import Content


def marked(old: str, new: str, style: str) -> Content:
    """The new answer with the words that are not in the old one in `style`."""
    before, after = _words(old), _words(new)
    matcher = SequenceMatcher(a=[w.lower() for w in before], b=[w.lower() for w in after], autojunk=False)
    parts: list[tuple[str, str]] = []
    for kind, _, _, start, stop in matcher.get_opcodes():
        text = "".join(after[start:stop])
        if text:
            parts.append((text, style if kind != "equal" else ""))
    return Content.assemble(*parts) if parts else Content("")


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|\s+|[^\w\s]", text)
