"""Where the two differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

TOLERANCE = 1e-9


def differences(theirs: Any, ours: Any, where: str = "") -> Iterator[str]:
    """Every leaf that differs by more than the tolerance, and every key that only one side has."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted(theirs.keys() | ours.keys(), key=str):
            if key not in theirs or key not in ours:
                yield f"{where}/{key}: only {'ours' if key in ours else 'theirs'}"
            else:
                yield from differences(theirs[key], ours[key], f"{where}/{key}")
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for index, (a, b) in enumerate(zip(theirs, ours, strict=True)):
            yield from differences(a, b, f"{where}/{index}")
    elif isinstance(theirs, (int, float)) and isinstance(ours, (int, float)):
        if abs(theirs - ours) > TOLERANCE:
            yield f"{where}: theirs {theirs}, ours {ours}"
    elif theirs != ours:
        yield f"{where}: theirs {theirs!r}, ours {ours!r}"
