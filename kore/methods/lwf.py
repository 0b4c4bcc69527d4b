"""LwF (Li and Hoiem 2016): LoRA that must go on answering the new samples as the base would.

    L = L_ce + alpha * tau^2 * KL(softmax(z_T / tau) || softmax(z_S / tau))

z_T are the base's logits on the same new samples: the same model with its adapters off, no second copy.
The mean is over the positions that carry loss. tau = 2 as found in released code; its alpha of 0.001 has
no effect that could be measured, so the default is 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from kore.methods.base import MethodSettings, Traits
from kore.methods.lora import Lora
from kore.models.adapter_off import adapter_off
from kore.models.processing import IGNORED


class LwfSettings(MethodSettings):
    alpha: float = Field(default=1.0, ge=0)
    """Weight of the distillation."""
    tau: float = Field(default=2.0, gt=0)
    """Temperature."""


class Lwf(Lora):
    """Distil from the model before injection."""

    name = "lwf"
    traits = Traits(
        zero=(0, 1, 2),
        why="the base answers between the model's forward and backward pass, where ZeRO-3 fetches weights",
    )
    Settings = LwfSettings

    def extra_memory(self, model: Any, tokens: int) -> int:
        """The teacher's logits, and both sides' logarithms of them in float32."""
        return int(3 * 4 * tokens * model.config.get_text_config().vocab_size)

    def penalty(self, model: Any, inputs: Mapping[str, Tensor], logits: Tensor) -> Tensor:
        assert isinstance(self.settings, LwfSettings)
        with torch.no_grad(), adapter_off(model):
            teacher = model(**{k: v for k, v in inputs.items() if k != "labels"}).logits
        spoken = inputs["labels"][:, 1:] != IGNORED  # (B, T-1)
        tau = self.settings.tau
        student = log_softmax(logits[:, :-1][spoken].float() / tau, dim=-1)  # (n, V)
        target = log_softmax(teacher[:, :-1][spoken].float() / tau, dim=-1)
        distance = kl_div(student, target, log_target=True, reduction="sum")
        return self.settings.alpha * tau**2 * distance / max(1, len(student))
