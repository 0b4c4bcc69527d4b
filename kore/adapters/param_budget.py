"""Trainable parameters: KORE's count, and the LoRA rank that spends the same.

KORE trains B alone, r * d_out per linear; LoRA trains both factors, r * (d_in + d_out).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kore.errors import ProfileError

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


def parse_count(text: str) -> int:
    """Parameters of ``340M``, ``1.5B`` or a plain number.

    Raises:
        ProfileError: not a count.
    """
    number, unit = (text[:-1], text[-1].upper()) if text and text[-1].isalpha() else (text, "")
    try:
        count = int(float(number) * {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9}[unit])
    except (ValueError, KeyError, OverflowError) as error:
        raise ProfileError(
            f"{text!r} is not a number of parameters", where="adapter.budget", hint="for example 340M"
        ) from error
    return count


def paid_rank(budget: int, outputs: int) -> int:
    """The largest rank whose B matrices fit the budget: r * outputs <= budget.

    Args:
        outputs: sum of d_out over the adapted linears.

    Raises:
        ProfileError: not even rank 1 fits.
    """
    rank = budget // outputs
    if rank < 1:
        raise ProfileError(
            f"{budget:,} parameters do not pay for rank 1 ({outputs:,})", where="adapter.budget"
        )
    return rank
