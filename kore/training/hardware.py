"""Choices that depend on the hardware; each can be set in the profile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from kore.config.resolve import TrainSection

USABLE = 0.85  # share of the GPU's memory that an estimate may fill


@dataclass(frozen=True)
class Hardware:
    """What a run uses.

    Attributes:
        device: its name.
        dtype: of the weights.
        attention: transformers' name of the implementation.
        tf32: whether float32 products may use TF32.
        fused: whether AdamW runs as one fused kernel.
        checkpointing: whether activations are recomputed in the backward pass.
    """

    device: str
    dtype: str
    attention: str
    tf32: bool = False
    fused: bool = False
    checkpointing: bool = False

    def __str__(self) -> str:
        """One line."""
        choices = [
            self.dtype,
            f"{self.attention} attention",
            f"TF32 {'on' if self.tf32 else 'off'}",
            "fused AdamW" if self.fused else "AdamW",
            "gradient checkpointing" if self.checkpointing else "no gradient checkpointing",
        ]
        return f"{self.device}: {', '.join(choices)}"


def choose(model: Any, device: torch.device, section: TrainSection, needed: int) -> Hardware:
    """The choices for a model on a device.

    Args:
        needed: estimated bytes per device without gradient checkpointing.
    """
    import torch

    cuda = device.type == "cuda"
    recent = cuda and torch.cuda.get_device_capability(device) >= (8, 0)
    short = cuda and needed > USABLE * memory_of(device)
    return Hardware(
        device=torch.cuda.get_device_name(device) if cuda else device.type,
        dtype=str(model.dtype).removeprefix("torch."),
        attention=str(getattr(model.config, "_attn_implementation", None) or "eager"),
        tf32=cuda and _set(section.tf32, recent),
        fused=not section.zero and _set(section.fused, cuda),
        checkpointing=_set(section.gradient_checkpointing, short),
    )


def memory_of(device: torch.device) -> int:
    """Bytes: a GPU's, else the machine's."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _set(setting: bool | str, choice: bool) -> bool:
    return choice if setting == "auto" else bool(setting)


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Allow TF32 inside the block only: covariances are summed in full float32."""
    import torch

    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    if on:
        matmul.allow_tf32 = cudnn.allow_tf32 = True
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
