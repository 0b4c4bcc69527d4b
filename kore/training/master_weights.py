"""Trained parameters of a half-precision model in float32: a small update of a bfloat16 number rounds away.

PEFT holds its low-rank factors so by itself; this is for what is trained in full (the projector, or the
whole language model). While they are wide, every forward pass runs under autocast. DeepSpeed keeps float32
copies of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Wide:
    """What was made wider.

    Attributes:
        parameters: now float32.
        dtype: what they were, and what the model computes in.
    """

    parameters: Sequence[nn.Parameter] = ()
    dtype: torch.dtype = torch.float32

    def forward(self, device: torch.device) -> AbstractContextManager[object]:
        """In which the model's forward passes must run."""
        return torch.autocast(device.type, self.dtype) if self.parameters else nullcontext()

    def back(self) -> None:
        """Make them what they were."""
        for parameter in self.parameters:
            parameter.data = parameter.data.to(self.dtype)
            parameter.grad = None


def widen(model: nn.Module) -> Wide:
    """Make the trainable half-precision parameters float32."""
    found = [p for p in model.parameters() if p.requires_grad and p.dtype in HALF]
    if not found:
        return Wide()
    wide = Wide(found, found[0].dtype)
    for parameter in found:
        parameter.data = parameter.data.float()
    return wide
