"""Trainable parameters: KORE's count, and the LoRA rank that spends the same.

KORE trains B alone, r * d_out per linear; LoRA trains both factors, r * (d_in + d_out).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def size(parameter: Any) -> int:
    """Numbers in a parameter, wherever they are: under ZeRO-3 the tensor at hand is empty."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def kore_count(linears: Mapping[str, nn.Linear], rank: int | Mapping[str, int]) -> int:
    """Parameters of B over all adapted linears; a linear without a rank is not adapted."""
    if isinstance(rank, int):
        return sum(rank * linear.out_features for linear in linears.values())
    return sum(rank[name] * linear.out_features for name, linear in linears.items() if name in rank)


def lora_count(linears: Mapping[str, nn.Linear], rank: int) -> int:
    """Parameters of A and B over all linears."""
    return sum(rank * (linear.in_features + linear.out_features) for linear in linears.values())


def lora_rank(linears: Mapping[str, nn.Linear], count: int) -> int:
    """The LoRA rank whose count is nearest to `count`, at least 1."""
    return max(1, round(count / lora_count(linears, 1)))
