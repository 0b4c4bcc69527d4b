"""Folders that vLLM can serve, made to its documented rules; they have not been run in vLLM here.

vLLM takes a LoRA of one of a few ranks, with no per-layer ranks, scaled by alpha / r, and refuses an
adapter that carries whole modules. So ranks are padded with zeros, alpha becomes the padded rank, and
a projector that was trained goes into a copy of the base.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kore.adapters.export import compare, copy_rest, logits, refuse_bad
from kore.adapters.lora_state import CONFIG, PREFIX, WEIGHTS, scales
from kore.config.resolve import ModelSection
from kore.errors import DataError
from kore.io.files import read_json, write_json
from kore.models.architectures import skeleton
from kore.models.load import load
from kore.models.offload import renamer

if TYPE_CHECKING:
    from kore.models.generate import Prompt
    from kore.models.load import Backbone

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


def write_vllm(
    adapter: Path,
    out: Path,
    backbone: Backbone,
    prompts: Sequence[Prompt],
    with_adapter: Tensor,
    base: Tensor,
) -> dict[str, Any]:
    """``adapter/`` with the padded LoRA and, if whole modules were trained, ``base/`` with them inside.

    The pair is checked by stock PEFT before it counts as made.
    """
    from peft import PeftModel
    from safetensors.torch import load_file, save_file

    weights = load_file(adapter / WEIGHTS)
    low_rank = {k: v for k, v in weights.items() if ".lora_A." in k or ".lora_B." in k}
    whole = {k.removeprefix(PREFIX): v for k, v in weights.items() if k not in low_rank}
    config = read_json(adapter / CONFIG)
    ranks = {
        k.removeprefix(PREFIX).partition(".lora_A.")[0]: v.shape[0]
        for k, v in low_rank.items()
        if ".lora_A." in k
    }
    rank = padded_rank(max(ranks.values()))
    names = sorted(ranks)
    folder = out / ADAPTER
    folder.mkdir(parents=True, exist_ok=True)
    save_file(pad(low_rank, scales(config, ranks), rank), folder / WEIGHTS, metadata={"format": "pt"})
    place = out / BASE if whole else backbone.path
    if whole:
        write_base(backbone.path, place, whole)
    config |= {
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": {},
        "alpha_pattern": {},
        "modules_to_save": None,
        "target_modules": names,
        "base_model_name_or_path": str(place),
        "inference_mode": True,
    }
    write_json(folder / CONFIG, config)
    plain = load(ModelSection(id=str(place), dtype="float32"))
    plain.model = PeftModel.from_pretrained(plain.model, str(folder))
    plain.model.eval()
    check = compare(logits(plain, prompts), with_adapter, base, len(prompts))
    refuse_bad(check, "the padded adapter")
    return {
        "check": check.__dict__,
        "rank": rank,
        "base_folder": str(place) if whole else None,
        "run_in_vllm": False,
    }


def write_base(source: Path, target: Path, replaced: dict[str, Tensor]) -> None:
    """Copy a model folder with some tensors replaced; shards without them are linked, not copied.

    Args:
        replaced: by the model's own names.

    Raises:
        DataError: a tensor that the base does not hold, or of another shape.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    target.mkdir(parents=True, exist_ok=True)
    copy_rest(source, target)
    rename = renamer(skeleton(source))
    left = dict(replaced)
    for path in sorted(source.glob("*.safetensors")):
        with safe_open(path, framework="pt") as stream:
            keys = {key: rename(key) for key in stream.keys()}  # noqa: SIM118 (not a mapping)
            if not any(name in left for name in keys.values()):
                _link(path, target / path.name)
                continue
            tensors = {}
            for key, name in keys.items():
                old = stream.get_tensor(key)
                new = left.pop(name, None)
                if new is not None and new.shape != old.shape:
                    raise DataError(f"is {tuple(new.shape)}, the base has {tuple(old.shape)}", where=name)
                tensors[key] = (
                    old if new is None else new.to(old.dtype if old.dtype != torch.float16 else new.dtype)
                )
        save_file(tensors, target / path.name, metadata={"format": "pt"})
    if left:
        raise DataError(f"{len(left)} trained tensors are not in the base", where=min(left))
    for path in source.glob("*.index.json"):
        shutil.copyfile(path, target / path.name)


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
