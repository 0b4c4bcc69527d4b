"""What a LoRA folder holds, by the model's own names, whatever ranks and scales its configuration gives."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kore.errors import DataError, MissingArtefact
from kore.io.files import read_json, write_json
from kore.models.checkpoint import read_tensors, refuse_pickles

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
PREFIX = "base_model.model."
_MERGE = "merge it into its base with PEFT (merge_and_unload), and use that as the base"
# what PEFT adds to a LoRA beside A and B
_EXTRAS = ("lora_bias", "layer_replication", "target_parameters", "trainable_token_indices", "use_qalora")


@dataclass(frozen=True)
class LowRank:
    """One LoRA.

    Attributes:
        factors: linear -> A (r, d_in) and B (d_out, r), alpha / r folded into B: Delta W = B A.
        whole: tensors that were trained in full.
        modules: the modules that those belong to (PEFT's modules_to_save).
    """

    factors: dict[str, tuple[Tensor, Tensor]]
    whole: dict[str, Tensor]
    modules: tuple[str, ...] = ()

    def then(self, later: LowRank) -> LowRank:
        """Both at once: [B1 B2] [A1; A2] = B1 A1 + B2 A2; what the later one trained in full replaces
        the earlier one's."""
        factors = dict(self.factors)
        for name, (a, b) in later.factors.items():
            if name in factors:
                first, second = factors[name]
                a, b = torch.cat([first.to(a), a]), torch.cat([second.to(b), b], dim=1)
            factors[name] = (a, b)
        modules = tuple(dict.fromkeys((*self.modules, *later.modules)))
        return LowRank(factors, {**self.whole, **later.whole}, modules)


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of an adapter folder, which holds a plain LoRA with its weights in safetensors.

    Raises:
        DataError: another kind of adapter, by name, or weights that are a pickle.
        MissingArtefact: no weights.
    """
    config = read_json(folder / CONFIG)
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA" or config.get("use_dora"):
        name = "DoRA" if kind == "LORA" else str(kind or "unknown")
        raise DataError(
            f"an adapter of type {name}; KORE reads plain LoRA", where=str(folder / CONFIG), hint=_MERGE
        )
    if not (folder / WEIGHTS).is_file():
        refuse_pickles(folder)
        raise MissingArtefact(f"no weights here: {folder}", hint="make them with: kore train")
    return dict(config)


def read_low_rank(folder: Path) -> LowRank:
    """The LoRA of an adapter folder.

    Raises:
        DataError: it is no plain LoRA, or its weights are broken.
    """
    config = read_config(folder)
    if extra := sorted(name for name in _EXTRAS if config.get(name)):
        raise DataError(
            f"a LoRA with {extra[0]} cannot be written as B A", where=str(folder / CONFIG), hint=_MERGE
        )
    weights = {k.removeprefix(PREFIX): v for k, v in read_tensors(folder / WEIGHTS).items()}
    down = {k.removesuffix(".lora_A.weight"): v for k, v in weights.items() if k.endswith(".lora_A.weight")}
    scale = scales(config, {name: len(a) for name, a in down.items()})
    factors = {name: (a, scale[name] * weights[f"{name}.lora_B.weight"]) for name, a in down.items()}
    whole = {k: v for k, v in weights.items() if ".lora_A." not in k and ".lora_B." not in k}
    return LowRank(factors, whole, tuple(config.get("modules_to_save") or ()))


def write_low_rank(folder: Path, value: LowRank) -> None:
    """Replace an adapter folder's LoRA: weights, ranks, targets; every scale is 1."""
    from safetensors.torch import save_file

    tensors = dict(value.whole)
    for name, (a, b) in value.factors.items():
        tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = a, b
    save_file(
        {f"{PREFIX}{k}": v.contiguous() for k, v in tensors.items()},
        folder / WEIGHTS,
        metadata={"format": "pt"},
    )
    ranks = {name: len(a) for name, (a, _) in value.factors.items()}
    most = max(ranks.values())
    different = {name: r for name, r in ranks.items() if r != most}
    config = read_json(folder / CONFIG)
    names = list(ranks)
    as_list = isinstance(config.get("target_modules"), list)  # a model whose regexes PEFT misreads
    config |= {
        "r": most,
        "lora_alpha": most,
        "rank_pattern": different,
        "alpha_pattern": different,
        "use_rslora": False,
        "target_modules": names if as_list else "|".join(map(re.escape, names)),
        "modules_to_save": list(value.modules) or None,
    }
    write_json(folder / CONFIG, config)


def scales(config: Mapping[str, Any], ranks: Mapping[str, int]) -> dict[str, float]:
    """alpha / r of every adapted linear."""
    alphas = config.get("alpha_pattern") or {}
    found = {}
    for name, rank in ranks.items():
        alpha = next(
            (a for pattern, a in alphas.items() if re.match(rf"(.*\.)?({pattern})$", name)),
            config["lora_alpha"],
        )
        found[name] = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    return found
