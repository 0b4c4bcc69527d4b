"""O-LoRA (Wang et al. 2023): LoRA whose A is pushed out of the subspace that old knowledge uses.

    L = L_ce + lambda * sum_layers sum_ij |A A_old^T|_ij

A_old would be the A of an earlier task's LoRA. In one injection step there is none, and with none the
method is plain LoRA; so A_old, (r, d_in) with orthonormal rows, is taken to be the r leading directions
of each linear's inputs over the retention samples: where the earlier task's A would have learned to look.
lambda = 0.05 as in released code. Old samples are required: without them it would be plain LoRA.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from kore.adapters.lora_layers import beside, lora_layers
from kore.methods.base import MethodSettings, Setup, Traits
from kore.methods.lora import Lora
from kore.models.adapter_off import adapter_off
from kore.models.collate import collate


class OLoraSettings(MethodSettings):
    strength: float = Field(default=0.05, ge=0)
    """lambda."""
    samples: int = Field(default=256, ge=1)
    """At most so many retention samples."""


def overlap(a: Tensor, old: Tensor) -> Tensor:
    """sum |A A_old^T| over all pairs of rows."""
    return (a.float() @ old.float().T).abs().sum()


class OLora(Lora):
    """Keep A orthogonal to the directions of old inputs."""

    name = "olora"
    traits = Traits(
        zero=(0, 1, 2),
        needs_old=True,
        why="its penalty reads whole factors, which ZeRO-3 does not keep together",
    )
    Settings = OLoraSettings

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        super().__init__(values)
        self.old: dict[str, Tensor] = {}
        self.last = 0.0

    def begin(self, setup: Setup) -> None:
        assert isinstance(self.settings, OLoraSettings)
        self.old = leading_directions(setup, self.settings.samples)

    def penalty(self, model: Any, inputs: Mapping[str, Tensor], logits: Tensor | None) -> Tensor:
        assert isinstance(self.settings, OLoraSettings)
        total = torch.zeros((), device=inputs["labels"].device)
        for name, layer in lora_layers(model).items():
            total = total + overlap(layer.lora_A["default"].weight, self.old[name].to(total.device))
        self.last = float(total.detach())
        return self.settings.strength * total

    def note(self) -> str:
        return f"O-LoRA's overlap with the old directions at the last step: {self.last:.3g}"

    def state(self) -> dict[str, Tensor]:
        return dict(self.old)

    def restore(self, state: Mapping[str, Tensor], model: Any) -> None:
        self.old = beside(state, model)


def leading_directions(setup: Setup, count: int) -> dict[str, Tensor]:
    """The leading r directions of every adapted linear's inputs over old samples, (r, d_in) each."""
    model = setup.backbone.model
    layers = lora_layers(model)
    sums: dict[str, Tensor] = {}  # on the CPU: those of a 7B are tens of GiB
    source: dict[str, str] = {}  # linear -> the linear that first saw the same input
    mask: list[Tensor] = []
    last: list[tuple[Tensor, str]] = []

    def watch(name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            if last and last[0][0] is args[0] and source.get(name, last[0][1]) == last[0][1]:
                source[name] = last[0][1]
                return
            last[:] = [(args[0], name)]
            source[name] = name
            x = args[0].detach().float()[mask[0].bool()]  # (tokens, d_in)
            product = (x.T @ x).cpu()
            sums[name] = sums[name].add_(product) if name in sums else product.double()

        return hook

    handles = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    model.eval()
    try:
        with torch.no_grad(), adapter_off(model):
            for sample in list(setup.old)[:count]:
                inputs = collate([setup.encoder.training(sample)], setup.encoder.pad_id)
                inputs = {k: v.to(setup.backbone.device) for k, v in inputs.items() if k != "labels"}
                mask[:] = [inputs["attention_mask"]]
                model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for first in list(sums):
        vectors = torch.linalg.eigh(sums.pop(first).to(setup.backbone.device)).eigenvectors
        for name in (n for n, s in source.items() if s == first):
            rank = layers[name].lora_A["default"].weight.shape[0]
            found[name] = vectors[:, -rank:].T.float().contiguous()
    return {name: found[name] for name in layers}
