"""The KORE adapter: a plain LoRA whose A is given and frozen, whose B starts at zero.

W* = W0 - B0 A + B A = W0 + (B - B0) A, so with A frozen the residual form and this one follow the same
path, and the base stays untouched (docs/architecture.md). PEFT makes a frozen A trainable again in
several places; `freeze_a` and `assert_frozen` are the only ways in and out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kore.adapters.lora_state import WEIGHTS, read_config
from kore.errors import DataError, MissingArtefact
from kore.io.files import read_json, write_json
from kore.models.checkpoint import read_tensors
from kore.models.load_errors import loading

if TYPE_CHECKING:
    from torch import Tensor

    from kore.models.families import Family
    from kore.models.load import Backbone

FACTS = "kore.json"
NAME = "default"


def attach(
    model: Any,
    family: Family | None,
    *,
    rank: int | Mapping[str, int],
    a: Mapping[str, Tensor] | None = None,
    projector: bool = False,
    adapter: str = NAME,
) -> Any:
    """Wrap `model` in a LoRA on its language linears, exactly the identity at first.

    Args:
        model: a PeftModel gets the adapter beside its own, which stay active and are frozen.
        family: None where `a` names the linears and there is no projector.
        rank: r, or r per linear's full name.
        a: linear's full name -> (r, d_in); given: frozen A of KORE, only these linears are adapted.
            None: plain LoRA, random A, both factors trained.
        projector: train the projector too, in full (PEFT's modules_to_save).
        adapter: the adapter's name in PEFT.

    Returns:
        The PeftModel; B = 0, alpha = r, dropout 0.
    """
    from peft import LoraConfig, PeftModel, get_peft_model
    from peft.tuners.lora import LoraLayer

    per_name = dict(rank) if isinstance(rank, Mapping) else {}
    names = list(a) if a is not None else list(per_name)
    single = rank if isinstance(rank, int) else max(per_name.values())
    different = {_pattern(n, names): r for n, r in per_name.items() if r != single}
    whole = family.projector if family else None
    config = LoraConfig(
        r=single,
        lora_alpha=single,
        lora_dropout=0.0,
        target_modules=_targets(family, names),
        rank_pattern=different,
        alpha_pattern=different,
        modules_to_save=[whole] if projector and whole else None,
        init_lora_weights=True,
    )
    peft_model: Any = model
    if isinstance(model, PeftModel):
        earlier = list(model.active_adapters)
        peft_model.add_adapter(adapter, config)
        for name in earlier:
            _freeze(peft_model, name, ("lora_A", "lora_B"))
        peft_model.base_model.set_adapter([*earlier, adapter])
    else:
        peft_model = get_peft_model(model, config, adapter_name=adapter)
    wanted = set(names or (family.linears if family else ()))
    if wanted and (extra := _adapted(peft_model, adapter) - wanted):
        raise DataError("PEFT adapts a linear that was not asked for", where=min(extra))
    if a is None:
        return peft_model
    left = dict(a)
    for name, module in peft_model.base_model.model.named_modules():
        if isinstance(module, LoraLayer) and name in left:
            weight: Any = module.lora_A[adapter].weight
            value = left.pop(name)
            if tuple(weight.shape) != tuple(value.shape):
                raise DataError(
                    f"A is {tuple(value.shape)}, the layer wants {tuple(weight.shape)}", where=name
                )
            with torch.no_grad():
                weight.copy_(value)
    if left:
        raise DataError(f"{len(left)} linears of the adapter are not in the model", where=next(iter(left)))
    freeze_a(peft_model, adapter)
    assert_frozen(peft_model)
    return peft_model


def _targets(family: Family | None, names: list[str]) -> str | list[str] | None:
    """PEFT's target_modules: the named linears, else all that the family adapts."""
    if names:
        return family.only(names) if family else "|".join(re.escape(name) for name in names)
    return family.targets if family else None


def _adapted(model: Any, adapter: str) -> set[str]:
    """Full names of the modules with a LoRA of this name."""
    from peft.tuners.lora import LoraLayer

    named = model.base_model.model.named_modules()
    return {n for n, m in named if isinstance(m, LoraLayer) and adapter in m.lora_A}


def _pattern(name: str, names: list[str]) -> str:
    """A key of PEFT's rank_pattern, which also matches the ends of longer names unless it is anchored."""
    return f"^{re.escape(name)}" if any(other.endswith(f".{name}") for other in names) else name


def freeze_a(model: Any, adapter: str = NAME) -> None:
    """Freeze the adapter's lora_A, and tell PEFT so that its own calls keep it frozen."""
    _freeze(model, adapter, ("lora_A",))


def _freeze(model: Any, adapter: str, factors: tuple[str, ...]) -> None:
    from peft.tuners.lora import LoraLayer

    for module in model.modules():
        if isinstance(module, LoraLayer) and adapter in module.lora_A:
            named = module.frozen_peft_weight_names
            module.frozen_peft_weight_names = {**named, adapter: (*named.get(adapter, ()), *factors)}
            for factor in factors:
                getattr(module, factor)[adapter].weight.requires_grad_(False)


def assert_frozen(model: Any) -> None:
    """Raise unless no lora_A is trainable and some lora_B is.

    Called before the optimiser is built, at each checkpoint and after a resume.
    """
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    thawed = [name for name in trainable if "lora_A" in name]
    if thawed:
        raise AssertionError(f"{len(thawed)} frozen A matrices became trainable, first {thawed[0]}")
    if not any("lora_B" in name for name in trainable):
        raise AssertionError("no lora_B is trainable")


def save(model: Any, folder: Path, facts: Mapping[str, Any]) -> None:
    """Write a PEFT folder plus kore.json (base fingerprint, method, covariance, lineage)."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    write_json(folder / FACTS, dict(facts))


def read_facts(folder: Path) -> dict[str, Any]:
    """kore.json of an adapter folder.

    Raises:
        MissingArtefact: not an adapter folder.
    """
    if not (folder / "adapter_config.json").is_file():
        raise MissingArtefact(f"no adapter here: {folder}", hint="make one with: kore train")
    path = folder / FACTS
    return dict(read_json(path)) if path.is_file() else {}


def check_base(backbone: Backbone, folder: Path) -> dict[str, Any]:
    """The facts of an adapter that is about to be loaded; the backbone loses its earlier adapters, which a
    saved adapter holds.

    Raises:
        DataError: it was trained on another base.
    """
    facts = read_facts(folder)
    base = facts.get("base")
    if base and base != backbone.fingerprint:
        raise DataError(
            f"this adapter belongs to base {base}, the model is {backbone.fingerprint}", where=str(folder)
        )
    if backbone.earlier is not None:
        backbone.earlier.take_off(backbone)
    return facts


def load_lora(backbone: Backbone, folder: Path) -> None:
    """Put a saved LoRA on the backbone, strictly; nothing of it is trainable.

    Raises:
        DataError: made for another base, of another kind than LoRA, broken, or with keys missing from or
            unknown to the model.
        MissingArtefact: no adapter, or one without weights.
    """
    from peft import LoraConfig, get_peft_model
    from peft.utils import set_peft_model_state_dict

    facts = check_base(backbone, folder)
    read_config(folder)
    weights = read_tensors(folder / WEIGHTS)
    with loading("adapter", folder):
        config = LoraConfig.from_pretrained(str(folder))
        config.inference_mode = True
        # on the backbone at once, so that a load that fails halfway can be undone
        model = backbone.model = get_peft_model(backbone.model, config)
        result: Any = set_peft_model_state_dict(model, weights)
    adapted = {
        n.replace(f".{NAME}", "")
        for n, _ in model.named_parameters()
        if ".lora_" in n or "modules_to_save" in n
    }
    missing = sorted(adapted - {n.replace(".modules_to_save", "") for n in weights} - set(weights))
    missing = [n for n in missing if n.replace(".modules_to_save", "") not in weights]
    if result.unexpected_keys or missing:
        raise DataError(
            f"adapter and model do not fit: {len(missing)} keys missing, "
            f"{len(result.unexpected_keys)} unknown, first {(missing or result.unexpected_keys)[0]}",
            where=str(folder),
        )
    if facts.get("frozen_a"):
        freeze_a(model)
    model.requires_grad_(False)
    model.eval()
