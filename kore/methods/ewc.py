"""EWC (Kirkpatrick et al. 2017): LoRA, with changes of weights that old answers depend on made costly.

    L = L_ce + lambda / 2 * sum_i F_i (Delta W_i)^2

F is the diagonal empirical Fisher information of the base's adapted weights over the retention samples:
the mean over samples of the squared gradient of that sample's loss, answers as labels, evaluation mode.
At B = 0 the Fisher of LoRA's own factors would be zero in A, so it is taken of W0 and the penalty of
Delta W = B A (one injection step; the continual setting of the literature does not define this).

F is the square of a gradient, so its size says as much about the model's size and its loss as about what
matters, and no one lambda suits two models. It is therefore told by its effect: a change of every weight by a
tenth of its matrix's root mean square, which is about what plain LoRA does, costs `strength`:

    lambda / 2 = strength / sum over matrices of (0.1 rms(W0))^2 sum_i F_i

At the default of 1 the penalty stands beside a cross entropy of that size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kore.adapters.lora_layers import beside, delta, lora_layers, squared_rows
from kore.methods.base import MethodSettings, Setup, Traits
from kore.methods.lora import Lora
from kore.models.adapter_off import adapter_off
from kore.models.collate import collate


class EwcSettings(MethodSettings):
    strength: float = Field(default=1.0, ge=0)
    """What a change of every weight by a tenth of its matrix's size costs."""
    samples: int = Field(default=256, ge=1)
    """At most so many retention samples."""
    fisher: Literal["full", "rows"] = "full"
    """One number per weight (float16), or one per row: 1/d_in of the memory."""


class Ewc(Lora):
    """Keep what the Fisher information of old answers calls important."""

    name = "ewc"
    traits = Traits(
        zero=(0, 1, 2),
        needs_old=True,
        quantised=False,
        why="its penalty reads whole weights, which ZeRO-3 does not keep together",
    )
    Settings = EwcSettings

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        super().__init__(values)
        self.fisher: dict[str, Tensor] = {}
        self.half_lambda = 0.0
        self.last = 0.0

    def begin(self, setup: Setup) -> None:
        assert isinstance(self.settings, EwcSettings)
        model = setup.backbone.model
        weights = {n: layer.base_layer.weight for n, layer in lora_layers(model).items()}
        before = {n: p.requires_grad for n, p in model.named_parameters()}
        rows = self.settings.fisher == "rows"
        self.fisher = {
            n: torch.zeros(len(w), 1 if rows else w.shape[1], device=w.device) for n, w in weights.items()
        }
        old = list(setup.old)[: self.settings.samples]
        model.eval()
        with adapter_off(model):
            model.requires_grad_(False)
            for weight in weights.values():
                weight.requires_grad_(True)
            for sample in old:
                inputs = collate([setup.encoder.training(sample)], setup.encoder.pad_id)
                loss = model(**{k: v.to(setup.backbone.device) for k, v in inputs.items()}).loss
                for (name, _), grad in zip(
                    weights.items(), torch.autograd.grad(loss, list(weights.values())), strict=True
                ):
                    square = grad.detach().float() ** 2
                    self.fisher[name] += (square.mean(1, keepdim=True) if rows else square) / len(old)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(before[name])
        sizes = {n: float(w.detach().float().pow(2).mean()) for n, w in weights.items()}
        columns = {n: w.shape[1] if rows else 1 for n, w in weights.items()}  # that one number stands for
        cost = sum(TENTH**2 * sizes[n] * columns[n] * float(f.sum()) for n, f in self.fisher.items())
        self.half_lambda = self.settings.strength / cost if cost else 0.0
        if rows:
            self.fisher = {n: SCALE * f for n, f in self.fisher.items()}
        else:
            self.fisher = {n: squeezed(f) for n, f in self.fisher.items()}

    def penalty(self, model: Any, inputs: Mapping[str, Tensor], logits: Tensor | None) -> Tensor:
        total = torch.zeros((), device=inputs["labels"].device)
        for name, layer in lora_layers(model).items():
            # made again for the backward pass: else two whole matrices of every linear would be kept
            total = total + checkpoint(self._term, name, layer, total.device, use_reentrant=False)
        value = self.half_lambda * total / SCALE
        self.last = float(value.detach())
        return value

    def _term(self, name: str, layer: Any, device: torch.device) -> Tensor:
        """One linear's share of the penalty."""
        fisher = self.fisher[name].to(device).float()
        change = squared_rows(layer) if fisher.shape[1] == 1 else delta(layer) ** 2
        return (fisher * change).sum()

    def extra_memory(self, model: Any, tokens: int) -> int:
        """The Fisher numbers, in float32 while they are measured."""
        assert isinstance(self.settings, EwcSettings)
        rows = self.settings.fisher == "rows"
        layers = lora_layers(model).values()
        return int(sum(4 * m.out_features * (1 if rows else m.in_features) for m in layers))

    def note(self) -> str:
        return f"EWC's penalty at the last step: {self.last:.3g} (lambda {2 * self.half_lambda:.3g})"

    def state(self) -> dict[str, Tensor]:
        return {**self.fisher, HALF: torch.tensor(self.half_lambda, dtype=torch.float64)}

    def restore(self, state: Mapping[str, Tensor], model: Any) -> None:
        self.fisher = beside({n: t for n, t in state.items() if n != HALF}, model)
        self.half_lambda = float(state[HALF])


TENTH = 0.1
HALF = "half lambda"
SCALE = 2.0**16  # Fisher numbers are far below float16's smallest; they are kept times this


def squeezed(fisher: Tensor) -> Tensor:
    """Float16, scaled so that small numbers survive."""
    return (fisher * SCALE).clamp(max=torch.finfo(torch.float16).max).half()
