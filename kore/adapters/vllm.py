"""Folders that vLLM can serve: one LoRA without whole modules, and a base under published names.

vLLM reads ``rank_pattern`` and ``alpha_pattern``. Ranks are padded with zeros to one nevertheless: its
``--max-lora-rank`` takes only some numbers, and the padded LoRA also serves where patterns are ignored.
It refuses an adapter that carries whole modules, so a projector that was trained goes into a copy of the
base; so does a base whose weights it would not find by their names.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kore.adapters.lora_state import CONFIG, PREFIX, WEIGHTS, LowRank, scales
from kore.adapters.merge import has_published_names, merge
from kore.artifacts.model_folder import model_name
from kore.errors import DataError
from kore.io.files import read_json, write_json
from kore.models.checkpoint import read_tensors

if TYPE_CHECKING:
    from kore.adapters.export_check import Reference

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
ADAPTER, BASE = "adapter", "base"


def padded_rank(rank: int) -> int:
    """The smallest rank of vLLM's that holds `rank`.

    Raises:
        DataError: above the largest.
    """
    for allowed in RANKS:
        if rank <= allowed:
            return allowed
    raise DataError(f"rank {rank} is above vLLM's largest, {RANKS[-1]}", hint="kore export --to merged")


def pad(weights: dict[str, Tensor], scale: dict[str, float], rank: int) -> dict[str, Tensor]:
    """LoRA factors of one rank: rows of zeros below A, columns of zeros beside B.

    Args:
        weights: ``...lora_A.weight`` (r, d_in) and ``...lora_B.weight`` (d_out, r).
        scale: alpha / r per module; it goes into B, so that the padded adapter's own scale is 1.
    """
    made = {}
    for key, value in weights.items():
        if ".lora_A." in key:
            made[key] = torch.cat([value, value.new_zeros(rank - value.shape[0], value.shape[1])])
        else:
            value = value * scale[key.removeprefix(PREFIX).partition(".lora_B.")[0]]
            made[key] = torch.cat([value, value.new_zeros(value.shape[0], rank - value.shape[1])], dim=1)
    return {k: v.contiguous() for k, v in made.items()}


def write_vllm(adapter: Path, out: Path, reference: Reference) -> dict[str, Any]:
    """``adapter/`` with the padded LoRA and, where the base cannot be served as it is, ``base/``.

    The pair is checked by stock PEFT before it counts as made.
    """
    from safetensors.torch import save_file

    weights = read_tensors(adapter / WEIGHTS)
    low_rank = {k: v for k, v in weights.items() if ".lora_A." in k or ".lora_B." in k}
    whole = {k.removeprefix(PREFIX): v for k, v in weights.items() if k not in low_rank}
    config = read_json(adapter / CONFIG)
    ranks = {
        k.removeprefix(PREFIX).partition(".lora_A.")[0]: v.shape[0]
        for k, v in low_rank.items()
        if ".lora_A." in k
    }
    rank = padded_rank(max(ranks.values()))
    folder = out / ADAPTER
    folder.mkdir(parents=True, exist_ok=True)
    save_file(pad(low_rank, scales(config, ranks), rank), folder / WEIGHTS, metadata={"format": "pt"})
    base, served = reference.path, model_name(reference.path)
    if whole or reference.select_layer is not None or not has_published_names(base):
        base, served = out / BASE, f"./{BASE}"
        merge(reference.path, base, LowRank({}, whole), select_layer=reference.select_layer)
    config |= {
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": {},
        "alpha_pattern": {},
        "use_rslora": False,
        "modules_to_save": None,
        "target_modules": sorted(ranks),
        "base_model_name_or_path": str(base.resolve()) if base == out / BASE else served,
        "inference_mode": True,
    }
    write_json(folder / CONFIG, config)
    check = reference.check("the padded adapter", base, folder)
    return {"check": check.__dict__, "rank": rank, "served": served}
