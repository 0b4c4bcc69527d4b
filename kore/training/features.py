"""Encoded samples: made when first needed, kept within a budget, equal pictures stored once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kore.errors import DataError
from kore.io.files import hash_bytes
from kore.models.processing import IGNORED
from kore.training.sampler import EMPTY

if TYPE_CHECKING:
    from torch import Tensor

    from kore.models.processing import Encoder
    from kore.training.dataset import Located

BUDGET = 2 << 30  # bytes of encoded samples kept in memory
EAGER = 4096  # up to so many samples are encoded at once, for their lengths


class Features:
    """Samples as model inputs, by index.

    Args:
        budget: bytes to keep; the sample used longest ago goes first.
    """

    def __init__(self, samples: Sequence[Located], encoder: Encoder, *, budget: int = BUDGET) -> None:
        self.samples = samples
        self.encoder = encoder
        self._budget = budget
        self._held = 0
        self._kept: OrderedDict[int, dict[str, Tensor]] = OrderedDict()
        self._pictures: dict[tuple[str, tuple[int, ...], str], Tensor] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        one = self.samples[index]
        try:
            features = self.encoder.training(one.sample)
        except DataError as error:
            raise DataError(error.message, where=one.where, hint=error.hint) from error
        self._keep(index, features)
        return features

    def _keep(self, index: int, features: dict[str, Tensor]) -> None:
        for name, value in features.items():
            if value.dim() > 1:
                key = (name, tuple(value.shape), hash_bytes(value.contiguous().numpy().tobytes()))
                same = self._pictures.get(key)
                if same is not None:
                    features[name] = same
                    continue
                self._pictures[key] = value
            self._held += value.numel() * value.element_size()
        self._kept[index] = features
        if self._held > self._budget:
            # pictures are shared, so single samples cannot be priced: start over
            self._kept = OrderedDict({index: features})
            self._pictures.clear()
            self._held = sum(v.numel() * v.element_size() for v in features.values())

    def lengths(self) -> list[int]:
        """Tokens of each sample; up to `EAGER` samples are encoded for it and kept.

        Raises:
            DataError: a sample that is too long, with its place: now, and not when its turn comes.
        """
        if len(self) <= EAGER:
            return [len(self[i]["input_ids"]) for i in range(len(self))]
        found = [self.encoder.length(one.sample) for one in self.samples]
        most = self.encoder.max_length
        for index, length in enumerate(found):
            if most and length > most:
                self[index]  # raises, naming the sample
        return found


class Stream:
    """The features in training order: what the trainer's loader sees, one entry per sample drawn.

    In an empty place stands a sample with all its labels masked.
    """

    def __init__(self, features: Features, order: Sequence[int]) -> None:
        self.features = features
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        index = self.order[position]
        if index != EMPTY:
            return self.features[index]
        shape = self.features[self.order[0]]
        return {**shape, "labels": shape["labels"].new_full(shape["labels"].shape, IGNORED)}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))
