"""Batches of encoded samples: padding, labels and image tensors."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import pad

from kore.models.processing import IGNORED

_PER_TOKEN = ("cross_attention_mask",)  # (1, T, images, tiles): which images a token attends to
_FILL = {"labels": IGNORED, "attention_mask": 0, "mm_token_type_ids": 0, "token_type_ids": 0}


def collate(features: Iterable[dict[str, Tensor]], pad_id: int, side: str = "right") -> dict[str, Tensor]:
    """Pad sequences to the longest and stack pictures.

    Args:
        features: outputs of `Encoder`.
        side: right for training, left for generation.

    Returns:
        input_ids, attention_mask (, labels): (B, T); picture tensors concatenated along dim 0, smaller ones
        filled up with zeros.
    """
    rows = _all_shown(list(features))
    length = max(len(row["input_ids"]) for row in rows)
    batch: dict[str, Tensor] = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row[key] for row in rows if key in row]
        if values[0].dim() == 1 and len(values) == len(rows) and len(values[0]) == len(rows[0]["input_ids"]):
            fill = _FILL.get(key, pad_id)
            out = values[0].new_full((len(rows), length), fill)
            for index, value in enumerate(values):
                part = slice(0, len(value)) if side == "right" else slice(length - len(value), length)
                out[index, part] = value
            batch[key] = out
        elif key in _PER_TOKEN:
            short = [length - value.shape[1] for value in values]
            gaps = [(0, gap) if side == "right" else (gap, 0) for gap in short]
            batch[key] = _joined([pad(v, (0, 0, 0, 0, *gap)) for v, gap in zip(values, gaps, strict=True)])
        else:
            batch[key] = _joined(values)
    return batch


def _all_shown(rows: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Blank images, which no token attends to, for rows without one where each row must have its own
    (cross-attention models)."""
    shown = next((row for row in rows if any(key in row for key in _PER_TOKEN)), None)
    if shown is None:
        return rows
    blank = {k: v.new_zeros(1, *v.shape[1:]) for k, v in shown.items() if v.dim() > 1}
    if "aspect_ratio_mask" in blank:  # one tile to attend to, as in the processor's own padding
        blank["aspect_ratio_mask"][..., 0] = 1

    def of_length(row: dict[str, Tensor]) -> dict[str, Tensor]:
        size = {key: (1, len(row["input_ids"]), *blank[key].shape[2:]) for key in _PER_TOKEN if key in blank}
        return {**blank, **{key: blank[key].new_zeros(shape) for key, shape in size.items()}}

    return [row if blank.keys() <= row.keys() else {**of_length(row), **row} for row in rows]


def _joined(values: list[Tensor]) -> Tensor:
    """Along the first axis. A picture of fewer tiles, or a smaller one, is filled up with zeros at its end,
    as processors do with the pictures of one call: models leave out such tiles, and what a mask is zero at.
    """
    most = [max(sizes) for sizes in zip(*(value.shape[1:] for value in values), strict=True)]
    if all(list(value.shape[1:]) == most for value in values):
        return torch.cat(values, dim=0)
    out = values[0].new_zeros((sum(map(len, values)), *most))
    place = 0
    for value in values:
        out[(slice(place, place + len(value)), *map(slice, value.shape[1:]))] = value
        place += len(value)
    return out
