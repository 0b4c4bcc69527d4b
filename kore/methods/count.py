"""Trainable parameters: KORE's count, and the LoRA rank that spends the same.

KORE trains B alone, r * d_out per linear; LoRA trains both factors, r * (d_in + d_out).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kore.errors import ProfileError

if TYPE_CHECKING:
    from torch import nn


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


def parse_budget(text: str) -> int:
    """``340M``, ``1.2B``, ``500k`` or a plain number of parameters.

    Raises:
        ProfileError: not a number with one of these letters.
    """
    scale = {"k": 1e3, "m": 1e6, "b": 1e9}.get(text[-1:].lower())
    try:
        value = float(text[:-1]) * scale if scale else float(text)
    except ValueError as error:
        raise ProfileError(f"not a number of parameters: {text}", where="adapter.budget") from error
    if value < 1:
        raise ProfileError(f"not a number of parameters: {text}", where="adapter.budget")
    return int(value)


def kore_rank(linears: Mapping[str, nn.Linear], budget: int) -> int:
    """The largest KORE rank whose count stays within `budget`.

    Raises:
        ProfileError: not even rank 1 fits.
    """
    rank = budget // kore_count(linears, 1)
    if rank < 1:
        raise ProfileError(
            f"{budget:,} parameters do not pay for rank 1 ({kore_count(linears, 1):,})",
            where="adapter.budget",
        )
    return rank
