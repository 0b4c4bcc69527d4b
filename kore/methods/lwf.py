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

from kore.methods.base import MethodSettings, Setup, Traits
from kore.methods.lora import Lora
from kore.models.adapter_off import adapter_off
from kore.models.answer_loss import AnswerLoss


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
        reads_logits=True,
        why="the base answers between the model's forward and backward pass, where ZeRO-3 fetches weights",
    )
    Settings = LwfSettings

    def extra_memory(self, model: Any, tokens: int) -> int:
        """The teacher's logits, and both sides' logarithms of them in float32."""
        return int(3 * 4 * tokens * model.config.get_text_config().vocab_size)

    def attach(self, setup: Setup) -> None:
        super().attach(setup)
        self.teacher = AnswerLoss(setup.backbone.model, keep_logits=True)

    def penalty(self, model: Any, inputs: Mapping[str, Tensor], logits: Tensor | None) -> Tensor:
        assert isinstance(self.settings, LwfSettings)
        assert logits is not None
        with torch.no_grad(), adapter_off(model):
            self.teacher.forward(model, inputs)
        base, self.teacher.logits = self.teacher.logits, None
        assert base is not None
        tau = self.settings.tau
        student = log_softmax(logits.float() / tau, dim=-1)  # (n, V)
        target = log_softmax(base.float() / tau, dim=-1)
        distance = kl_div(student, target, log_target=True, reduction="sum")
        return self.settings.alpha * tau**2 * distance / max(1, len(student))
