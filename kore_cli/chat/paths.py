"""Image paths in typed, pasted or dropped text."""

from __future__ import annotations

import contextlib
import re
import shlex
from pathlib import Path
from urllib.parse import unquote, urlparse

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


def as_picture(text: str) -> str | None:
    """The image that `text` names, in any form terminals paste: quoted, escaped, file:// or plain."""
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
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # invalid URL, or unknown home
            if candidate.startswith("file://"):
                candidate = unquote(urlparse(candidate).path)
            path = Path(candidate).expanduser()
            if path.suffix.lower() in SUFFIXES and path.is_file():
                return str(path.resolve())
    return None


def split_pictures(text: str) -> tuple[str, list[str]]:
    """The text without image paths, and the paths at its start, at its end or on lines of their own."""
    whole = as_picture(text)
    if whole:
        return "", [whole]
    kept, images = [], []
    for line in text.split("\n"):
        picture = as_picture(line)
        if picture:
            images.append(picture)
            continue
        words = re.findall(r"(?:\"[^\"]*\"|'[^']*'|(?:\\.|\S)+)|\s+", line)
        while words and (words[0].isspace() or as_picture(words[0])):
            word = words.pop(0)
            images += [p for p in [as_picture(word)] if p]
        tail: list[str] = []
        while words and (words[-1].isspace() or as_picture(words[-1])):
            word = words.pop()
            tail = [p for p in [as_picture(word)] if p] + tail
        images += tail
        kept.append("".join(words))
    return "\n".join(kept).strip(), images
