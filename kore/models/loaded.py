"""Models that the caller has already loaded: their base, their linears by name, a fingerprint, a backbone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kore.config.schema import ModelSection
from kore.errors import DataError, UsageError
from kore.io.files import hash_bytes, hash_json
from kore.models.families import Family, family_of, language_linears
from kore.models.load import Backbone, set_reading

_SAMPLED = 64  # values at each end of a parameter that go into the fingerprint
_ADAPTER = re.compile(r"(^|\.)(lora_[A-Za-z_]+|modules_to_save)\.")
# of a configuration: where it came from, how it is run, and what trainers overwrite
_VOLATILE = {
    "transformers_version",
    "use_cache",
    "dtype",
    "torch_dtype",
    "attn_implementation",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "quantization_config",
}


def base_of(model: nn.Module) -> nn.Module:
    """The model itself, or the one inside a PeftModel with its adapter layers in place."""
    inner = getattr(model, "get_base_model", None)
    return inner() if callable(inner) else model


def loaded_family(model: nn.Module) -> Family | None:
    """The family of a language model; None for any other module."""
    try:
        return family_of(base_of(model))
    except DataError:
        return None


def named_linears(
    model: nn.Module, target_modules: str | Sequence[str] | None = None
) -> dict[str, nn.Linear]:
    """The linears to adapt by the name that they have in the model without any adapter.

    Args:
        target_modules: as in PEFT's LoraConfig: a regular expression that matches whole names, or a list of
            names or last parts of names. None: the decoder's linears in a known language model, else
            every linear but the output embeddings.

    Raises:
        UsageError: nothing matches.
    """
    base = base_of(model)
    family = loaded_family(model)
    if target_modules is None and family is not None:
        return language_linears(base, family)
    found = dict(_plain_linears(base))
    if target_modules is None:
        output = getattr(base, "get_output_embeddings", lambda: None)()
        found = {n: m for n, m in found.items() if m is not output}
    elif isinstance(target_modules, str):
        pattern = re.compile(target_modules)
        found = {n: m for n, m in found.items() if pattern.fullmatch(n)}
    else:
        ends = tuple(f".{t}" for t in target_modules)
        found = {n: m for n, m in found.items() if n in target_modules or n.endswith(ends)}
    if not found:
        wanted = "" if target_modules is None else f" matches {target_modules!r}"
        raise UsageError(
            f"no linear layer of {type(base).__name__}{wanted}",
            hint="name them with target_modules, as in PEFT's LoraConfig",
        )
    return found


def _plain_linears(base: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    for name, module in base.named_modules():
        if isinstance(module, nn.Linear) and not _ADAPTER.search(f"{name}."):
            yield name.replace(".base_layer", ""), module


def object_fingerprint(model: nn.Module) -> str:
    """Hash of a loaded model: configuration, shapes and types of its parameters, both ends of their values.

    Of quantised weights only the layer's size counts: bitsandbytes may repack them during the first pass.
    """
    base = base_of(model)
    config = getattr(base, "config", None)
    parts: list[object] = [type(base).__name__]
    if config is not None and hasattr(config, "to_dict"):
        parts.append(_stable(config.to_dict()))
    packed = {
        f"{name}.weight": [module.out_features, module.in_features, "quantised"]
        for name, module in base.named_modules()
        if isinstance(module, nn.Linear) and type(module).__name__ in ("Linear4bit", "Linear8bitLt")
    }
    for name, value in sorted(base.named_parameters()):
        facts = packed.get(name) or [list(value.shape), str(value.dtype), _ends(value)]
        parts.append([name.replace(".base_layer", ""), *facts])
    return hash_json(parts)


def _ends(value: nn.Parameter) -> str:
    if value.is_meta or not value.numel():
        return ""
    flat = value.detach().reshape(-1)
    both = torch.cat([flat[:_SAMPLED], flat[-_SAMPLED:]]).cpu().contiguous()
    return hash_bytes(both.view(torch.uint8).numpy().tobytes())


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {str(k): v for k, v in value.items() if k not in _VOLATILE and not str(k).startswith("_")}
        return {k: _stable(v) for k, v in kept.items()}
    if isinstance(value, (list, tuple)):
        return [_stable(inner) for inner in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def folder_of_loaded(model: nn.Module) -> Path | None:
    """The folder that a model was loaded from, where it is on this machine."""
    name = getattr(getattr(base_of(model), "config", None), "_name_or_path", "")
    return Path(name) if name and (Path(name) / "config.json").is_file() else None


def backbone_from(model: nn.Module, processor: Any) -> Backbone:
    """A backbone around a model and a processor that the caller has loaded.

    Raises:
        DataError: its language layers cannot be found.
    """
    base: Any = base_of(model)
    family = family_of(base)
    method = str(getattr(getattr(base, "quantization_method", ""), "value", ""))
    bits = {"bitsandbytes": "4bit" if getattr(base, "is_loaded_in_4bit", False) else "8bit"}
    section = ModelSection.model_validate({"quantisation": bits.get(method, "none")})
    return Backbone(
        base,
        processor,
        family,
        folder_of_loaded(model) or Path(type(base).__name__),
        object_fingerprint(model),
        next(base.parameters()).device,
        reads=set_reading(base, processor, section),
    )
