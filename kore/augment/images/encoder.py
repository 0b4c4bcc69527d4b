"""How alike two pictures are: features whose cosine says it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from PIL import Image

from kore.io.images import open_image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class PictureEncoder(Protocol):
    """Features of pictures."""

    @property
    def name(self) -> str:
        """As the manifest names it."""
        ...

    def features(self, paths: Sequence[Path]) -> NDArray[np.float32]:
        """One row per picture, (n, d), of length 1."""
        ...


class ClassicEncoder:
    """A small classical descriptor: colours by place, edge directions by place, and the overall colour mix.

    No model and no download. It finds copies and pictures of like make-up; it does not know what they show.
    """

    name = "classic"
    _SIDE = 64

    def features(self, paths: Sequence[Path]) -> NDArray[np.float32]:
        """(n, 12*12*3 + 8*8*8 + 4*4*4), each block of length 1 before weighting, the row of length 1."""
        import numpy as np

        return np.stack([self._one(path) for path in paths]).astype(np.float32)

    def _one(self, path: Path) -> NDArray[np.float32]:
        import numpy as np

        small = shrunk(path, self._SIDE, Image.Resampling.BILINEAR)
        pixels = np.asarray(small, dtype=np.float32) / 255  # (64, 64, 3)
        blocks = np.asarray(small.resize((12, 12), Image.Resampling.BOX), dtype=np.float32) / 255
        layout = (blocks - blocks.mean(axis=(0, 1))).ravel()
        grey = pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
        down, right = np.gradient(grey)
        angle = (np.arctan2(down, right) % np.pi) / np.pi * 8  # edges have no direction, only an orientation
        strength = np.hypot(down, right)
        edges = np.zeros((8, 8, 8), dtype=np.float32)
        cell = np.arange(self._SIDE) // 8
        rows, columns = np.meshgrid(cell, cell, indexing="ij")
        np.add.at(edges, (rows, columns, np.minimum(angle.astype(int), 7)), strength)
        mix, _ = np.histogramdd(pixels.reshape(-1, 3), bins=(4, 4, 4), range=[(0, 1)] * 3)
        parts = [
            0.45**0.5 * _unit(layout),
            0.35**0.5 * _unit(edges.ravel()),
            0.2**0.5 * _unit(np.sqrt(mix).ravel()),
        ]
        whole: NDArray[np.float32] = _unit(np.concatenate(parts)).astype(np.float32)
        return whole


def shrunk(path: Path, side: int, how: Image.Resampling = Image.Resampling.BOX) -> Image.Image:
    """A picture as side x side pixels of RGB."""
    image = open_image(path, about=(side * 2, side * 2))
    return image.resize((side, side), how)


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    import numpy as np

    size = float(np.linalg.norm(vector))
    return vector / size if size > 1e-8 else vector
