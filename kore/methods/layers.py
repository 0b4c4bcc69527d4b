"""PEFT's LoRA layers and the change of weights that each stands for."""

from __future__ import annotations

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


def delta(layer: Any) -> Tensor:
    """Delta W = scale * B A of a LoRA layer, (d_out, d_in) float32, with its gradient."""
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    return layer.scaling["default"] * (b.float() @ a.float())  # type: ignore[no-any-return]
