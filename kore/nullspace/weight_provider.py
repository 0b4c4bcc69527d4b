"""Where a decoder layer's weights are while it runs: all in memory, or brought in one layer at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from torch import nn


class Weights(Protocol):
    """Brings weights into memory.

    Attributes:
        keeps_all: whether every layer is in memory anyway.
    """

    keeps_all: bool

    @property
    def peak_bytes(self) -> int:
        """Bytes of weights in memory at the peak."""
        ...

    def layer(self, index: int) -> AbstractContextManager[None]:
        """Decoder layer `index` can be run inside the block."""
        ...

    def outside(self) -> AbstractContextManager[None]:
        """What comes before the decoder layers can be run inside the block."""
        ...


class Held:
    """A model that is wholly in memory."""

    keeps_all = True

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    @property
    def peak_bytes(self) -> int:
        """All parameters and buffers."""
        held = [*self._model.parameters(), *self._model.buffers()]
        return sum(t.numel() * t.element_size() for t in held)

    @contextmanager
    def layer(self, index: int) -> Iterator[None]:
        """Nothing to do."""
        yield

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Nothing to do."""
        yield
