"""Which found pictures to keep: the most like the original, but no copies of it (paper, 4.2.1 step 2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kore.augment.images.encoder import PictureEncoder


@dataclass(frozen=True)
class Scored:
    """A picture's path in records and its cosine with the original."""

    image: str
    score: float


def most_similar(
    original: tuple[str, Path],
    found: list[tuple[str, Path]],
    encoder: PictureEncoder,
    *,
    keep: int,
    near: float,
) -> tuple[list[Scored], list[Scored]]:
    """Rank found pictures by likeness to the original.

    Args:
        original, found: record path and file of each.
        keep: how many to keep.
        near: a cosine at or above this is a copy, of the original or of one already kept.

    Returns:
        Those kept, most similar first, and the copies that were left out.
    """
    fresh = list({name: path for name, path in found if name != original[0]}.items())
    copies = [Scored(name, 1.0) for name, _ in found if name == original[0]]
    if not fresh:
        return [], copies
    rows = encoder.features([original[1], *(path for _, path in fresh)])
    scores = rows[1:] @ rows[0]
    kept: list[int] = []
    for index in sorted(range(len(fresh)), key=lambda i: (-float(scores[i]), fresh[i][0])):
        again = any(float(rows[1 + index] @ rows[1 + other]) >= near for other in kept)
        if float(scores[index]) >= near or again:
            copies.append(Scored(fresh[index][0], round(float(scores[index]), 4)))
        elif len(kept) < keep:
            kept.append(index)
    return [Scored(fresh[i][0], round(float(scores[i]), 4)) for i in kept], copies
