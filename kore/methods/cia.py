"""CIA (Qiao et al. 2024): LoRA whose result is a running average with a rate found at every step.

After each optimiser step, for each trained tensor, with a = |theta - theta*|_1, b = |g|_1 and
c = |g - g_before|_1:

    beta = 2 (1 + b) / (a c), or the fallback where that is not between 0 and 1
    theta* <- (1 - beta) theta* + beta theta

At the first step theta* = theta. At the end theta* is the result. The choice among several LoRAs by the
instructions' likeness belongs to many tasks and has no part in one injection step. theta* is float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from kore.methods.base import MethodSettings, Traits
from kore.methods.lora import Lora


class CiaSettings(MethodSettings):
    factor: float = Field(default=2.0, gt=0)
    """The 2 in beta's formula."""
    fallback: float = Field(default=0.01, gt=0, lt=1)
    """beta where the formula leaves (0, 1)."""


def beta(
    theta: Tensor, average: Tensor, grad: Tensor, before: Tensor, factor: float, fallback: float
) -> float:
    """The averaging rate of one tensor at one step."""
    a = float((theta - average).abs().sum())
    b = float(grad.abs().sum())
    c = float((grad - before).abs().sum())
    if a * c == 0:
        return fallback
    value = factor * (1 + b) / (a * c)
    return value if 0 < value < 1 else fallback


class Cia(Lora):
    """Average the weights along the way."""

    name = "cia"
    traits = Traits(zero=(0,), why="its average needs each parameter's whole gradient after the step")
    Settings = CiaSettings

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        super().__init__(values)
        self.average: dict[str, Tensor] = {}
        self.before: dict[str, Tensor] = {}

    def after_step(self, model: Any) -> None:
        assert isinstance(self.settings, CiaSettings)
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad or parameter.grad is None:
                continue
            theta, grad = parameter.detach().float(), parameter.grad.detach().float()
            if name not in self.average:
                self.average[name], self.before[name] = theta.clone(), grad.clone()
                continue
            average = self.average[name]
            rate = beta(theta, average, grad, self.before[name], self.settings.factor, self.settings.fallback)
            self.average[name] = average + rate * (theta - average)
            self.before[name] = grad.clone()

    def finish(self, model: Any) -> None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in self.average:
                    parameter.copy_(self.average[name].to(parameter.dtype))

    def state(self) -> dict[str, Tensor]:
        return {
            **{f"average.{n}": t for n, t in self.average.items()},
            **{f"before.{n}": t for n, t in self.before.items()},
        }

    def restore(self, state: Mapping[str, Tensor], model: Any) -> None:
        device = next(model.parameters()).device

        def part(prefix: str) -> dict[str, Tensor]:
            return {n.removeprefix(prefix): t.to(device) for n, t in state.items() if n.startswith(prefix)}

        self.average, self.before = part("average."), part("before.")
