"""Picture paths in what was typed, pasted or dropped onto the terminal."""

from __future__ import annotations

import contextlib
import re
import shlex
from pathlib import Path
from urllib.parse import unquote, urlparse

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


def as_picture(text: str) -> str | None:
    """The picture that `text` names, in any form terminals paste: quoted, escaped, file:// or plain."""
    text = text.strip()
    if not text or "\n" in text:
        return None
    candidates = [text]
    try:
        parts = shlex.split(text)
    except ValueError:
        parts = []
    if len(parts) == 1:
        candidates.append(parts[0])
    for candidate in candidates:
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # no address, or the home of nobody
            if candidate.startswith("file://"):
                candidate = unquote(urlparse(candidate).path)
            path = Path(candidate).expanduser()
            if path.suffix.lower() in SUFFIXES and path.is_file():
                return str(path.resolve())
    return None


def split_pictures(text: str) -> tuple[str, list[str]]:
    """What was said, and the pictures that were named at its beginning, at its end or on own lines."""
    whole = as_picture(text)
    if whole:
        return "", [whole]
    said, found = [], []
    for line in text.split("\n"):
        picture = as_picture(line)
        if picture:
            found.append(picture)
            continue
        words = re.findall(r"(?:\"[^\"]*\"|'[^']*'|(?:\\.|\S)+)|\s+", line)
        while words and (words[0].isspace() or as_picture(words[0])):
            word = words.pop(0)
            found += [p for p in [as_picture(word)] if p]
        tail: list[str] = []
        while words and (words[-1].isspace() or as_picture(words[-1])):
            word = words.pop()
            tail = [p for p in [as_picture(word)] if p] + tail
        found += tail
        said.append("".join(words))
    return "\n".join(said).strip(), found
