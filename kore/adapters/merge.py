"""Write a copy of a checkpoint with an adapter merged in, one shard at a time.

Weights keep the names of the checkpoint. One that transformers 5 saved from a fresh model lacks a part of
the vision tower's names, which other servers expect; it gets the published names.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kore.adapters.lora_state import LowRank
from kore.errors import DataError
from kore.io.files import read_json, write_json
from kore.models.architectures import skeleton
from kore.models.checkpoint import weight_files
from kore.models.load_errors import loading
from kore.models.offload import renamer

_TOWERS = ("clip_vision_model", "siglip_vision_model")  # published as vision_tower.vision_model.*
_SHORT = re.compile(r"^((?:model\.)?vision_tower\.)(?!vision_model\.)")
_DTYPE_KEYS = ("dtype", "torch_dtype")


def has_published_names(folder: Path) -> bool:
    """Whether a checkpoint's weights have the names of published checkpoints of its family."""
    published = _publisher(folder)
    return all(published(key) == key for path in weight_files(folder) for key in _keys(path))


def merge(
    source: Path,
    target: Path,
    adapter: LowRank,
    *,
    dtype: torch.dtype | None = None,
    select_layer: int | None = None,
) -> str:
    """Write `target`: the model folder `source` with W0 + B A in the place of W0.

    Each sum is computed in float32. Files without a change are hard links to the source's. At most one
    shard is in memory.

    Args:
        dtype: of every weight; None keeps each one's own.
        select_layer: replaces the configuration's vision_feature_layer.

    Returns:
        The types of the changed weights, e.g. "float16".

    Raises:
        DataError: the adapter changes a tensor that the checkpoint does not hold, or of another shape.
    """
    files = weight_files(source)
    target.mkdir(parents=True, exist_ok=True)
    copy_rest(source, target)
    _configure(target / "config.json", dtype, select_layer)
    merging = _Merging(adapter, dtype)
    rename, published = renamer(skeleton(source), whole_layout=False), _publisher(source)
    weight_map: dict[str, str] = {}
    size = 0
    for path in files:
        names = {key: rename(key) for key in _keys(path)}
        weight_map |= {published(key): path.name for key in names}
        keep = dtype is None and all(published(k) == k and not merging.changes(n) for k, n in names.items())
        size += _link(path, target / path.name) if keep else _rewrite(path, target, names, published, merging)
    merging.refuse_left()
    for path in source.glob("*.safetensors.index.json"):
        write_json(target / path.name, {"metadata": {"total_size": size}, "weight_map": weight_map})
    return ", ".join(sorted(merging.dtypes))


class _Merging:
    """What is left to be merged."""

    def __init__(self, adapter: LowRank, dtype: torch.dtype | None) -> None:
        self._factors = {f"{name}.weight": ab for name, ab in adapter.factors.items()}
        self._whole = adapter.whole
        self._left = self._factors.keys() | self._whole.keys()
        self._dtype = dtype
        self.dtypes: set[str] = set()

    def changes(self, name: str) -> bool:
        return name in self._left

    def apply(self, name: str, value: Tensor) -> Tensor:
        """A tensor of the checkpoint, by the model's name for it, as the merged model has it."""
        kind = self._dtype if self._dtype is not None and value.is_floating_point() else value.dtype
        if name not in self._left:
            return value.to(kind)
        self._left.remove(name)
        if name in self._whole:
            made = self._whole[name]
        else:
            a, b = (t.float() for t in self._factors[name])
            made = b @ a
        if made.shape != value.shape or not value.is_floating_point():
            kinds = f"{tuple(value.shape)} {value.dtype}"
            raise DataError(f"the base has {kinds}, the adapter {tuple(made.shape)}", where=name)
        if name not in self._whole:
            made = made.add_(value.float())
        made = made.to(kind).contiguous()
        if not bool(torch.isfinite(made).all()):
            raise DataError(
                f"the merged weight does not fit {kind}", where=name, hint="write it with --dtype float32"
            )
        self.dtypes.add(str(kind).removeprefix("torch."))
        return made

    def refuse_left(self) -> None:
        if self._left:
            raise DataError(f"{len(self._left)} trained tensors are not in the base", where=min(self._left))


def copy_rest(base: Path, out: Path) -> None:
    """Copy what a model folder holds beside weights: tokenizer, processor, templates."""
    for path in sorted(base.iterdir()):
        weights = path.suffix in (".safetensors", ".bin", ".pt", ".pth", ".gguf")
        index = path.name.endswith(".index.json")
        if path.is_file() and not weights and not index and path.name not in ("README.md", "lineage.json"):
            shutil.copyfile(path, out / path.name)


def _publisher(folder: Path) -> Callable[[str], str]:
    """From a checkpoint's key to its published name."""
    vision = read_json(folder / "config.json").get("vision_config") or {}
    short = vision.get("model_type") in _TOWERS

    def published(key: str) -> str:
        return _SHORT.sub(r"\1vision_model.", key) if short else key

    return published


def _keys(path: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as stream:
        return list(stream.keys())


def _rewrite(
    path: Path, target: Path, names: Mapping[str, str], published: Callable[[str], str], merging: _Merging
) -> int:
    """Write one shard, merged; returns the bytes of its tensors."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with loading("weights", path), safe_open(path, framework="pt") as stream:
        tensors = {published(key): merging.apply(name, stream.get_tensor(key)) for key, name in names.items()}
    save_file(tensors, target / path.name, metadata={"format": "pt"})
    return sum(t.numel() * t.element_size() for t in tensors.values())


def _configure(path: Path, dtype: torch.dtype | None, select_layer: int | None) -> None:
    """Write into a configuration what differs from the source's."""
    config = read_json(path)
    if dtype is not None:
        _set_dtype(config, str(dtype).removeprefix("torch."))
        if not any(key in config for key in _DTYPE_KEYS):
            config["dtype"] = str(dtype).removeprefix("torch.")
    if select_layer is not None:
        config["vision_feature_layer"] = select_layer
    write_json(path, config)


def _set_dtype(config: dict[str, Any], name: str) -> None:
    """Replace every type that the configuration and its parts name."""
    for key, value in config.items():
        if key in _DTYPE_KEYS and value is not None:
            config[key] = name
        elif isinstance(value, dict):
            _set_dtype(value, name)


def _link(source: Path, target: Path) -> int:
    """A hard link to an unchanged shard, or a copy; returns the bytes of its tensors."""
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
    with target.open("rb") as stream:
        return target.stat().st_size - 8 - int.from_bytes(stream.read(8), "little")
