"""Where a model keeps its decoder layers, projector and vision tower, and which of its linears are adapted.

Nothing is looked up by the model's name: decoder layers, linears and the projector are found in the module
tree, and one forward pass over a few text tokens tells which linears really read one vector per token.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from kore.errors import DataError

_TRACED = (2, 3)  # batch and tokens of the traced forward pass

_PROJECTOR = re.compile(r"proj|connect|merger|align|resampler|perceiver|adapt|embed_vision")
_VISION = re.compile(r"vis|image|vit")
_OUTER = re.compile(r"vis|image|audio|speech")
_EXPERT = re.compile(r"\.experts\.\d+\.")
_ROUTERS = ("gate", "router", "shared_expert_gate")
# PEFT refuses LoRA on the output projection of these: their fused kernels read its weight without calling it
_MAMBA = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h")
REFUSED = {
    "paligemma": "it reads its whole prompt in both directions and has no chat template, so an answer in a "
    "training sample would be seen before it is predicted"
}
_LLAMA = frozenset(
    [*(f"self_attn.{p}_proj" for p in "qkvo"), *(f"mlp.{p}_proj" for p in ("gate", "up", "down"))]
)


@dataclass(frozen=True)
class Skipped:
    """A weight of the language model that gets no adapter.

    Attributes:
        name: full name of the linear, or of a parameter that stands for several (fused experts).
        shape: of the weight.
        reason: why, for people.
    """

    name: str
    shape: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class Family:
    """Where a model keeps its parts.

    Attributes:
        name: transformers' model_type (llava, qwen2_5_vl, ...).
        layers: full name of the ModuleList of decoder layers.
        projector: full name of the vision-to-language projector, if there is one.
        vision: full name of the vision tower, if there is one.
        linears: full names of the adapted linears, in the order of the model.
        skipped: the language model's other weights that a LoRA could be thought to adapt.
        traced: whether a forward pass has confirmed which linears are called, and on what.
    """

    name: str
    layers: str
    projector: str | None
    vision: str | None
    linears: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    traced: bool = False

    @property
    def language(self) -> str:
        """Full name of the language model without its output head."""
        return self.layers.rpartition(".")[0]

    @property
    def targets(self) -> str | list[str]:
        """PEFT's target_modules for the adapted linears: never the vision tower's or the projector's."""
        if _renamed_by_peft(self.name):
            return list(self.linears)
        inside = dict.fromkeys(self.within_layer(name) for name in self.linears)
        if _LLAMA.issuperset(inside):
            inner = r"self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj"
        else:
            inner = "|".join(map(re.escape, inside))
        if any(self.within_layer(s.name) in inside for s in self.skipped):  # adapted in some layers only
            return self.only(self.linears)
        return rf"{re.escape(self.layers)}\.\d+\.({inner})"

    def only(self, linears: Sequence[str]) -> str | list[str]:
        """PEFT's target_modules for exactly these linears."""
        if _renamed_by_peft(self.name):
            return list(linears)
        return "|".join(map(re.escape, linears))

    def layer_of(self, linear: str) -> int:
        """The number of the decoder layer that holds a linear."""
        return int(linear.removeprefix(f"{self.layers}.").partition(".")[0])

    def within_layer(self, linear: str) -> str:
        """A linear's name inside its decoder layer; its full name where it is in none."""
        inner = linear.removeprefix(f"{self.layers}.")
        return linear if inner == linear else inner.partition(".")[2]


def _renamed_by_peft(model_type: str) -> frozenset[str]:
    """Names of linears that PEFT takes for parts of fused experts in models of this type.

    For such models it also cuts a regex down to the last parts of the names that match, vision tower and all;
    whole names in a list are left as they are.
    """
    from peft.utils import transformers_weight_conversion as conversion

    kinds: Any = getattr(conversion, "_MODEL_TO_CONVERSION_PATTERN", {})
    names: Any = getattr(conversion, "_MOE_TARGET_MODULE_MAPPING", {})
    return frozenset(names.get(kinds.get(model_type), ()))


def model_class(config: Any) -> Any:
    """The auto class that loads a configuration: image-text-to-text if the model can be that, else causal.

    Raises:
        DataError: neither.
    """
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
    )

    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return AutoModelForImageTextToText
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForCausalLM
    raise DataError(
        f"{getattr(config, 'model_type', type(config).__name__)} is neither a causal language model nor an "
        "image-text-to-text model",
        hint="KORE takes what AutoModelForCausalLM or AutoModelForImageTextToText loads",
    )


def family_of(model: nn.Module) -> Family:
    """Find the parts of a model in its module tree and check its linears by one forward pass.

    On the meta device shapes alone are followed; see `Family.traced` for whether the pass could be made.

    Raises:
        DataError: its language layers cannot be found, or hold no linear that can be adapted.
    """
    config = getattr(model, "config", None)
    name = getattr(config, "model_type", type(model).__name__)
    if getattr(config, "is_encoder_decoder", False):
        raise DataError(
            f"{name} is an encoder-decoder model", hint="KORE adapts models with decoder layers only"
        )
    if name in REFUSED:
        raise DataError(f"{name} cannot be taught: {REFUSED[name]}")
    layers = _decoder_layers(model, name)
    projector, vision = _outer_parts(model, layers)
    adapted, skipped, traced = _sort(model, name, layers)
    if not adapted:
        reasons = "; ".join(dict.fromkeys(s.reason for s in skipped))
        raise DataError(f"{name}: no linear under {layers} can be adapted ({reasons or 'it holds none'})")
    return Family(name, layers, projector, vision, tuple(adapted), tuple(skipped), traced)


def _decoder_layers(model: nn.Module, model_type: str) -> str:
    """Full name of the list of language decoder layers."""
    config: Any = getattr(model, "config", None)
    text = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    depth = getattr(text, "num_hidden_layers", None)
    decoder: Any = model.get_decoder() if hasattr(model, "get_decoder") else model  # type: ignore[operator]
    prefix = next((name for name, module in model.named_modules() if module is decoder), "")
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and (name.startswith(f"{prefix}.") or not prefix)
        and not _OUTER.search(name.removeprefix(prefix))
        and len(module) == (depth or len(module)) > 0
        and any(isinstance(part, nn.Linear) for layer in module for part in layer.modules())
    ]
    found = [name for name in found if not any(name.startswith(f"{other}.") for other in found)]
    if len(found) != 1:
        raise DataError(
            f"{model_type}: found {len(found)} stacks of language decoder layers, need exactly one"
        )
    return str(found[0])


def _outer_parts(model: nn.Module, layers: str) -> tuple[str | None, str | None]:
    """Projector and vision tower: what stands beside the language model on the way down to it."""
    projector = vision = None
    parts = layers.split(".")[:-2]
    for depth in range(len(parts) + 1):
        parent = ".".join(parts[:depth])
        for child, module in model.get_submodule(parent).named_children():
            name = f"{parent}.{child}" if parent else child
            if layers.startswith(f"{name}.") or not any(True for _ in module.parameters()):
                continue
            if _PROJECTOR.search(child):
                projector = projector or name
            elif _VISION.search(child):
                vision = vision or name
    if vision is not None and projector is None:
        inner = (child for child, _ in model.get_submodule(vision).named_children())
        projector = next((f"{vision}.{child}" for child in inner if _PROJECTOR.search(child)), None)
    return projector, vision


def _sort(model: nn.Module, model_type: str, layers: str) -> tuple[list[str], list[Skipped], bool]:
    """The linears to adapt, the language model's others with the reason, and whether a pass was made."""
    language = layers.rpartition(".")[0]
    head: Any = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None  # type: ignore[operator]
    linears = {
        name: module
        for name, module in _named_linears(model)
        if name.startswith(f"{language}.") or module is head
    }
    read = _traced(model, linears)
    adapted, skipped = [], []
    for name, module in linears.items():
        reason = _reason(model, name, layers, model_type)
        if reason is None and read is not None:
            reason = read[name]
        if reason is None:
            adapted.append(name)
        else:
            skipped.append(Skipped(name, (module.out_features, module.in_features), reason))
    for name, parameter in model.named_parameters():
        if name.startswith(f"{layers}.") and parameter.dim() == 3 and "expert" in name:
            reason = "all experts in one 3-D parameter, not a linear layer"
            skipped.append(Skipped(name, tuple(parameter.shape), reason))
    for name, module in model.get_submodule(layers).named_modules(prefix=layers):
        if type(module).__name__ == "Conv1D":
            shape: Any = module.weight.shape
            skipped.append(Skipped(name, tuple(shape), "transformers' Conv1D, not a linear layer"))
    return adapted, skipped, read is not None


def _reason(model: nn.Module, name: str, layers: str, model_type: str) -> str | None:
    """Why a linear is not adapted, as far as its place tells."""
    parent, _, stem = name.rpartition(".")
    if not name.startswith(f"{layers}."):
        return "outside the decoder layers"
    if _EXPERT.search(name):
        return "an expert of its own, which sees routed tokens only"
    if model_type in _MAMBA and stem == "out_proj":
        return "read by a fused kernel without being called, so PEFT refuses it"
    if stem in _renamed_by_peft(model_type):
        return "PEFT takes a linear of this name for a part of fused experts"
    block = model.get_submodule(parent)
    if stem in _ROUTERS and any("expert" in child for child, _ in block.named_children() if child != stem):
        return "routes tokens to experts"
    return None


def _traced(model: nn.Module, linears: dict[str, nn.Linear]) -> dict[str, str | None] | None:
    """Per linear, why a forward pass over text speaks against adapting it, or None; nothing where the pass
    cannot be made."""
    if getattr(model, "config", None) is None:
        return None
    seen = _pass_over_text(model, list(linears))
    if seen is None and next(model.parameters()).is_meta:
        seen = _pass_over_fake_text(model, list(linears))
    return None if seen is None else {name: _judged(shapes) for name, shapes in seen.items()}


def _pass_over_fake_text(model: Any, linears: list[str]) -> dict[str, list[tuple[int, ...]]] | None:
    """As `_pass_over_text` where a model on the meta device asks for values: on fake tensors, which have
    shapes alone, in bfloat16, as the kernels for experts want it."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            config = copy.deepcopy(model.config)
            return _pass_over_text(type(model)._from_config(config, dtype=torch.bfloat16), linears)
    except (RuntimeError, ValueError):
        return None


def _pass_over_text(model: nn.Module, linears: list[str]) -> dict[str, list[tuple[int, ...]]] | None:
    """The shapes, without the width, of what each linear is called with in a pass over a few plain tokens."""
    seen: dict[str, list[tuple[int, ...]]] = {name: [] for name in linears}

    def hook(name: str) -> Any:
        return lambda module, args: seen[name].append(tuple(args[0].shape[:-1]))

    parameter = next(model.parameters())
    ids = torch.full(_TRACED, plain_token(model.config), device=parameter.device)
    inputs = {"input_ids": ids}
    if not parameter.is_meta:  # a mask's values are read
        inputs["attention_mask"] = torch.ones_like(ids)
    handles = [model.get_submodule(name).register_forward_pre_hook(hook(name)) for name in linears]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(**inputs, use_cache=False)
    except Exception:  # whatever the model's own code makes of this: the pass is an extra check
        return None
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return seen


def _judged(shapes: list[tuple[int, ...]]) -> str | None:
    batch, tokens = _TRACED
    if not shapes:
        return "not called in a pass over text alone"
    if len(shapes) > 1:
        return "called more than once in a pass"
    if shapes[0] not in ((batch, tokens), (batch * tokens,)):
        return "its input is not one vector per token"
    return None


def plain_token(config: Any) -> int:
    """A token that stands for itself: none of the configuration's special ones."""
    parts = [config, config.get_text_config()] if hasattr(config, "get_text_config") else [config]
    special = {
        value
        for part in parts
        for key, value in vars(part).items()
        if "token" in key and isinstance(value, int)
    }
    return next(i for i in range(len(special) + 1) if i not in special)


def language_layers(model: nn.Module, family: Family | None = None) -> nn.ModuleList:
    """The decoder layers of the language model."""
    layers = model.get_submodule((family or family_of(model)).layers)
    if not isinstance(layers, nn.ModuleList):
        raise DataError(f"{type(model).__name__}: the language layers are not a list")
    return layers


def language_linears(model: nn.Module, family: Family | None = None) -> dict[str, nn.Linear]:
    """The adapted linears by full name, in forward order; names are those without PEFT's wrappers."""
    family = family or family_of(model)
    wanted = set(family.linears)
    return {name: module for name, module in _named_linears(model) if name in wanted}


def _named_linears(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The model's own linears by their names without PEFT's wrappers; adapters' linears are left out."""
    wrappers: list[str] = []
    for name, module in model.named_modules():
        if hasattr(module, "base_layer"):
            wrappers.append(name)
        if not isinstance(module, nn.Linear):
            continue
        wrapper = next((w for w in wrappers if name.startswith(f"{w}.")), None)
        if wrapper is None:
            yield name, module
        elif name == f"{wrapper}.base_layer":
            yield wrapper, module
