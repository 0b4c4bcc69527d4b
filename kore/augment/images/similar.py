"""Which found pictures to keep: the most like the original, but no copies of it (paper, 4.2.1 step 2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kore.augment.images.encoder import PictureEncoder, shrunk

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

THUMB = 8  # side of the thumbnail by which resized and recompressed copies are known
SAME_THUMB = 0.03  # mean difference of two thumbnails, of 1, below which they show the same picture


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

    A copy is of the same bytes, or has a cosine of `near` or more, or shrinks to the same thumbnail: of the
    original, or of one already kept.

    Args:
        original, found: record path and file of each.
        keep: how many to keep.

    Returns:
        Those kept, most similar first, and the copies that were left out.
    """
    fresh = list({name: path for name, path in found if name != original[0]}.items())
    copies = [Scored(name, 1.0) for name, _ in found if name == original[0]]
    if not fresh:
        return [], copies
    paths = [original[1], *(path for _, path in fresh)]
    rows, thumbs = encoder.features(paths), _thumbs(paths)
    scores = rows[1:] @ rows[0]
    kept: list[int] = []

    def is_copy(a: int, b: int) -> bool:
        return float(rows[a] @ rows[b]) >= near or float(abs(thumbs[a] - thumbs[b]).mean()) < SAME_THUMB

    for index in sorted(range(len(fresh)), key=lambda i: (-float(scores[i]), fresh[i][0])):
        if any(is_copy(1 + index, other) for other in (0, *(1 + k for k in kept))):
            copies.append(Scored(fresh[index][0], round(float(scores[index]), 4)))
        elif len(kept) < keep:
            kept.append(index)
    return [Scored(fresh[i][0], round(float(scores[i]), 4)) for i in kept], copies


def _thumbs(paths: list[Path]) -> NDArray[np.float32]:
    """(n, 8, 8, 3), values 0 to 1."""
    import numpy as np

    return np.stack([np.asarray(shrunk(path, THUMB), dtype=np.float32) / 255 for path in paths])
