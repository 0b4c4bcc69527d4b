"""PEFT's LoRA layers and the change of weights that each stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def lora_layers(model: Any) -> dict[str, Any]:
    """PEFT's LoRA layers by the full name of the linear that they wrap."""
    from peft.tuners.lora import LoraLayer

    return {
        name.removeprefix("base_model.model."): module
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer) and isinstance(module, nn.Module)
    }


def beside(state: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """One tensor per LoRA layer, each on its layer's device: what a file gave is on the CPU."""
    layers = lora_layers(model)
    return {name: value.to(layers[name].base_layer.weight.device) for name, value in state.items()}


def delta(layer: Any) -> Tensor:
    """Delta W = scale * B A of a LoRA layer, (d_out, d_in) float32, with its gradient."""
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    return layer.scaling["default"] * (b.float() @ a.float())  # type: ignore[no-any-return]


def squared_rows(layer: Any) -> Tensor:
    """The squared length of each row of Delta W, (d_out, 1) float32, without Delta W itself.

    |b A|^2 = b (A A^T) b^T for a row b of B.
    """
    a, b = layer.lora_A["default"].weight.float(), layer.lora_B["default"].weight.float()
    scale: float = layer.scaling["default"]
    rows: Tensor = ((b @ (a @ a.T)) * b).sum(1, keepdim=True)
    return scale**2 * rows
