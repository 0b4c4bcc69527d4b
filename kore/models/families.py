"""What differs between model families: where the language layers and the projector are.

The names are those of transformers 5; other image-text-to-text models are recognised by structure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn

from kore.errors import DataError

SITES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Family:
    """Where a model keeps its parts.

    Attributes:
        name: transformers' model_type (llava, qwen2_5_vl, ...).
        layers: full name of the ModuleList of decoder layers.
        projector: full name of the vision-to-language projector, if there is one.
        vision: full name of the vision tower, if there is one.
    """

    name: str
    layers: str
    projector: str | None
    vision: str | None

    @property
    def targets(self) -> str:
        """Regex (full match) for the adapted linears: never the vision tower's or the projector's."""
        return rf"{re.escape(self.layers)}\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"


_KNOWN = {
    "llava": Family(
        "llava", "model.language_model.layers", "model.multi_modal_projector", "model.vision_tower"
    ),
    "qwen2_5_vl": Family("qwen2_5_vl", "model.language_model.layers", "model.visual.merger", "model.visual"),
    "qwen2_vl": Family("qwen2_vl", "model.language_model.layers", "model.visual.merger", "model.visual"),
    "smolvlm": Family("smolvlm", "model.text_model.layers", "model.connector", "model.vision_model"),
    "idefics3": Family("idefics3", "model.text_model.layers", "model.connector", "model.vision_model"),
}


def family_of(model: nn.Module) -> Family:
    """The family of a model, by its configuration's model_type, else by structure.

    Raises:
        DataError: its language layers cannot be found, or hold none of the adapted linears.
    """
    config = getattr(model, "config", None)
    model_type = getattr(config, "model_type", type(model).__name__)
    family = _KNOWN.get(model_type) or _by_structure(model, model_type)
    if not language_linears(model, family):
        raise DataError(
            f"{model_type}: no linear layer named {', '.join(SITES)} under {family.layers}",
            hint="KORE adapts decoder layers of the LLaMA kind",
        )
    return family


def _by_structure(model: nn.Module, model_type: str) -> Family:
    lists = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module)
        and hasattr(module[0], "self_attn")
        and hasattr(getattr(module[0], "mlp", None), "down_proj")
        and not re.search(r"vision|visual|image", name)
    ]
    if len(lists) != 1:
        raise DataError(
            f"{model_type}: found {len(lists)} stacks of language decoder layers, need exactly one"
        )
    vision = next(
        (n for n, _ in model.named_modules() if n.endswith(("vision_tower", "vision_model", "visual"))), None
    )
    projector = next(
        (n for n, _ in model.named_modules() if n.endswith(("multi_modal_projector", "connector", "merger"))),
        None,
    )
    return Family(model_type, lists[0], projector, vision)


def language_layers(model: nn.Module, family: Family | None = None) -> nn.ModuleList:
    """The decoder layers of the language model."""
    layers = model.get_submodule((family or family_of(model)).layers)
    if not isinstance(layers, nn.ModuleList):
        raise DataError(f"{type(model).__name__}: the language layers are not a list")
    return layers


def language_linears(model: nn.Module, family: Family | None = None) -> dict[str, nn.Linear]:
    """The adapted linears by full name, in forward order; names are those without PEFT's wrappers."""
    family = family or family_of(model)
    pattern = re.compile(family.targets)
    named = ((name.removesuffix(".base_layer"), module) for name, module in model.named_modules())
    return {n: module for n, module in named if isinstance(module, nn.Linear) and pattern.fullmatch(n)}
