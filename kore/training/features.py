"""Encoded samples: created when first needed or ahead by workers, kept in a cache of bounded size."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from kore.errors import DataError, KoreError
from kore.models.collate import collate
from kore.models.processing import IGNORED
from kore.training.disk_cache import DiskCache
from kore.training.sampler import EMPTY
from kore.training.workers import in_order, in_worker, worker_count

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from kore.models.processing import Encoder
    from kore.training.dataset import Located

BUDGET = 2 << 30  # bytes of encoded samples kept in memory
MEASURED = 8  # samples that are encoded to estimate time and size of all
ERROR = "error"  # the key under which a worker passes on an error instead of a batch


class Cache:
    """Encoded samples by index; those used longest ago are dropped first. Shared tensors count once."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.bytes = 0
        self.dropped = False
        self._rows: OrderedDict[int, dict[str, Tensor]] = OrderedDict()
        self._users: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, index: int) -> dict[str, Tensor] | None:
        """A kept sample."""
        if index in self._rows:
            self._rows.move_to_end(index)
        return self._rows.get(index)

    def put(self, index: int, row: dict[str, Tensor]) -> None:
        """Keep a sample, and drop others until all fit; the newest always stays."""
        self._rows[index] = row
        for value in row.values():
            self._users[id(value)] += 1
            if self._users[id(value)] == 1:
                self.bytes += _bytes(value)
        while self.bytes > self.budget and len(self._rows) > 1:
            self.dropped = True
            for value in self._rows.popitem(last=False)[1].values():
                self._users[id(value)] -= 1
                if not self._users[id(value)]:
                    del self._users[id(value)]
                    self.bytes -= _bytes(value)


class Features:
    """Samples as model inputs, by index.

    Args:
        budget: bytes to keep in memory, over all workers.
        workers: processes that encode; auto starts them only where they save more time than they cost.
    """

    def __init__(
        self,
        samples: Sequence[Located],
        encoder: Encoder,
        *,
        budget: int = BUDGET,
        workers: int | Literal["auto"] = 0,
    ) -> None:
        self.samples = samples
        self.encoder = encoder
        self.workers = workers
        self.cache = Cache(budget)
        self.disk: DiskCache | None = None
        self.seconds = 0.0  # to encode one sample
        self.size = 0  # bytes of one sample
        self._by_images: dict[tuple[str, ...], int] = {}  # images -> a sample that shows them

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if (kept := self.cache.get(index)) is not None:
            return kept
        if self.disk and (kept := self.disk.get(index)) is not None:
            return self._keep(index, kept)
        one = self.samples[index]
        try:
            row = self.encoder.training(one.sample)
        except DataError as error:
            raise DataError(error.message, where=one.where, hint=error.hint) from error
        if self.disk:
            self.disk.put(index, row)
        return self._keep(index, row)

    def __getstate__(self) -> dict[str, Any]:
        """For a worker: without what is kept, and with its share of the memory."""
        count = max(1, worker_count(self.workers, float("inf")))
        return {**self.__dict__, "cache": Cache(self.cache.budget // count), "_by_images": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        from transformers.utils import logging

        logging.set_verbosity_error()  # as in the process that loaded the processor
        self.__dict__.update(state)

    def _keep(self, index: int, row: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keep a sample; image tensors that an earlier sample of the same images has already are shared."""
        images = tuple(self.samples[index].sample.images)
        same = self.cache.get(self._by_images.get(images, -1)) or {}
        row = {name: _shared(value, same.get(name)) for name, value in row.items()}
        self._by_images[images] = index
        self.cache.put(index, row)
        return row

    def keep_on_disk(self, folder: Path, budget: int) -> None:
        """Keep as many samples in a folder as the budget allows, where memory does not hold them all."""
        if budget and not self.complete and self.size:
            self.disk = DiskCache(folder, budget // self.size)

    @property
    def complete(self) -> bool:
        """Whether every sample is kept."""
        return len(self.cache) == len(self)

    def lengths(self) -> list[int]:
        """Tokens of each sample. Where all samples fit into the cache, they are encoded for it and kept.

        Raises:
            DataError: a sample that is too long, with its place: now, and not when its turn comes.
        """
        if self._fits():
            for index, row in self._each(_Encoded(self)):
                if self.cache.get(index) is None:
                    self._keep(index, {name: value.clone() for name, value in row.items()})
            return [len(self[i]["input_ids"]) for i in range(len(self))]
        found = [length for _, length in self._each(_Lengths(self))]
        most = self.encoder.max_length
        for index, length in enumerate(found):
            if most and length > most:
                self[index]  # raises, naming the sample
        return found

    def _each(self, dataset: _Each) -> Iterator[tuple[int, Any]]:
        """The values of all samples in order, from workers where that saves time."""
        count = worker_count(self.workers, self.seconds * (len(self) - len(self.cache)))
        for index, value in enumerate(in_order(dataset, count)):
            if isinstance(value, KoreError):
                raise value
            yield index, value

    def _fits(self) -> bool:
        """Whether all samples fit into the cache, judged by some that are spread over them."""
        chosen = sorted({round(i * (len(self) - 1) / MEASURED) for i in range(MEASURED + 1)})
        start = time.perf_counter()
        rows = [self[i] for i in chosen]
        self.seconds = (time.perf_counter() - start) / len(rows)
        images = {tuple(one.sample.images) for one in self.samples}
        shown = sum(_bytes(v) for row in rows for v in row.values() if v.dim() > 1) / len(rows)
        tokens = sum(_bytes(v) for row in rows for v in row.values() if v.dim() == 1) / len(rows)
        self.size = int(shown + tokens)
        return not self.cache.dropped and shown * len(images) + tokens * len(self) <= self.cache.budget


class _Each:
    """A value per sample; an error comes as a value, because it crosses from a worker's process."""

    def __init__(self, features: Features) -> None:
        self.features = features

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.value(index)
        except KoreError as error:
            return error

    def value(self, index: int) -> Any:
        raise NotImplementedError


class _Encoded(_Each):
    def value(self, index: int) -> dict[str, Tensor]:
        return self.features[index]


class _Lengths(_Each):
    def value(self, index: int) -> int:
        return self.features.encoder.length(self.features.samples[index].sample)


class Stream:
    """The features in training order: what the trainer's loader sees, one entry per sample drawn.

    In an empty place stands a sample with all its labels masked.
    """

    def __init__(self, features: Features, order: Sequence[int]) -> None:
        self.features = features
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> dict[str, Any]:
        try:
            return self._row(self.order[position])
        except KoreError as error:
            if in_worker():
                return {ERROR: error}
            raise

    def _row(self, index: int) -> dict[str, Tensor]:
        if index != EMPTY:
            return self.features[index]
        shape = self.features[self.order[0]]
        return {**shape, "labels": shape["labels"].new_full(shape["labels"].shape, IGNORED)}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))

    @property
    def workers(self) -> int:
        """Worker processes that save time on what is not kept."""
        features = self.features
        if features.complete:
            return 0
        return worker_count(features.workers, features.seconds * len(self.order))


class Collate:
    """Samples to a batch."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        failed = next((row for row in rows if ERROR in row), None)
        return failed or collate(rows, self.pad_id)


def checked(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch, or the error that a worker passed on.

    Raises:
        KoreError: as it was raised in the worker.
    """
    if ERROR in batch:
        raise batch[ERROR]
    return batch


def _bytes(value: Tensor) -> int:
    return value.numel() * value.element_size()


def _shared(value: Tensor, other: Tensor | None) -> Tensor:
    """The other tensor where it is the same image's."""
    import torch

    if other is None or value.dim() < 2 or value.shape != other.shape or value.dtype != other.dtype:
        return value
    return other if torch.equal(value, other) else value
