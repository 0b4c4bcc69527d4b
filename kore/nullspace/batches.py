"""Samples as batches of model inputs, like lengths together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.data.records import IMAGE_MARK, Sample
from kore.io.files import hash_file, hash_json
from kore.models.collate import collate
from kore.models.processing import Encoder

if TYPE_CHECKING:
    from torch import Tensor

    from kore.models.load import Backbone

_KEEP = 512 << 20  # bytes of encoded samples to keep instead of opening pictures twice


@dataclass
class Batches:
    """All samples in batches; encoded when asked for.

    Attributes:
        lengths: tokens per sample.
        groups: sample numbers of each batch, short samples first.
    """

    encoder: Encoder
    samples: Sequence[Sample]
    with_answers: bool
    lengths: list[int]
    groups: list[list[int]]
    _kept: dict[int, dict[str, Any]]

    @property
    def tokens(self) -> int:
        """Tokens that count, over all samples."""
        return sum(self.lengths)

    @property
    def padded(self) -> int:
        """Tokens of all batches, padding included."""
        return sum(len(g) * max(self.lengths[i] for i in g) for g in self.groups)

    def inputs(self, batch: int) -> dict[str, Tensor]:
        """The model's inputs for one batch, padded on the right."""
        rows = [
            self._kept.get(i) or features(self.encoder, self.samples[i], self.with_answers)
            for i in self.groups[batch]
        ]
        return collate(rows, self.encoder.pad_id, side="right")


def features(encoder: Encoder, sample: Sample, with_answers: bool) -> dict[str, Any]:
    """One sample's inputs: its first question with the open generation prompt, or all of it.

    Raises:
        DataError: a broken picture, named with the sample.
    """
    if with_answers:
        row = dict(encoder.training(sample))
        row.pop("labels")
        return row
    turns = [m for m in sample.conversations if m.from_ == "system"][:1]
    turns.append(next(m for m in sample.conversations if m.from_ == "human"))
    marks = sum(m.value.count(IMAGE_MARK) for m in turns)
    return encoder.prompt(turns, sample.images[:marks], sample.id)


def placed(backbone: Backbone, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """A batch where the model is, pictures in its type."""
    dtype = backbone.model.dtype
    return {k: v.to(backbone.device, dtype if v.is_floating_point() else v.dtype) for k, v in batch.items()}


def make_batches(processor: Any, samples: Sequence[Sample], *, batch: int, with_answers: bool) -> Batches:
    """Encode every sample once for its length and group like lengths."""
    encoder = Encoder(processor, cached_pixels=1 << 24)
    lengths: list[int] = []
    kept: dict[int, dict[str, Any]] = {}
    room = _KEEP
    for index, sample in enumerate(samples):
        row = features(encoder, sample, with_answers)
        lengths.append(len(row["input_ids"]))
        room -= sum(t.numel() * t.element_size() for t in row.values())
        if room > 0:
            kept[index] = row
    order = sorted(range(len(samples)), key=lambda i: (lengths[i], i))
    groups = [order[i : i + batch] for i in range(0, len(order), batch)]
    return Batches(encoder, samples, with_answers, lengths, groups, kept)


def sample_hash(sample: Sample) -> str:
    """Hash of a sample's words and pictures, wherever the pictures lie."""
    pictures = [hash_file(Path(p)) if Path(p).is_file() else p for p in sample.images]
    turns = [[m.from_, m.value] for m in sample.conversations]
    return hash_json([sample.id, turns, pictures])
