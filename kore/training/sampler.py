"""The order in which samples are drawn: a function of seed and sizes alone.

Epochs follow each other without a seam: every optimiser step sees a full global batch, whatever the
number of devices, so a run is the same on one process and on many, and its position is its step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_WINDOW = 32  # global batches among which samples are grouped by length


def step_count(samples: int, epochs: float, batch: int, max_steps: int | None = None) -> int:
    """Optimiser steps for `epochs` passes, at most `max_steps`."""
    steps = max(1, math.ceil(samples * epochs / batch))
    return min(steps, max_steps) if max_steps is not None else steps


EMPTY = -1


def placed(order: Sequence[int], batch: int, empty: int) -> list[int]:
    """The order with `empty` places after each batch that take no sample."""
    if not empty:
        return list(order)
    starts = range(0, len(order), batch)
    return [i for start in starts for i in (*order[start : start + batch], *[EMPTY] * empty)]


def draw(
    samples: int, steps: int, batch: int, *, seed: int, lengths: Sequence[int] | None = None
) -> list[int]:
    """Indices of the samples of all steps, steps * batch of them.

    Args:
        lengths: tokens of each sample; given, batches are made of like lengths, and come in random
            order within a window.
    """
    random = np.random.default_rng(seed)
    need = steps * batch
    order = np.concatenate([random.permutation(samples) for _ in range(math.ceil(need / samples))])[:need]
    if lengths is None:
        return [int(i) for i in order]
    size = np.asarray(lengths)
    pieces = []
    for start in range(0, need, _WINDOW * batch):
        window = order[start : start + _WINDOW * batch]
        window = window[np.argsort(-size[window], kind="stable")]
        rows = window.reshape(-1, batch)
        pieces.append(rows[random.permutation(len(rows))].reshape(-1))
    return [int(i) for i in np.concatenate(pieces)]
