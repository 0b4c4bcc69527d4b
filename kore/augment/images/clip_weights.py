"""Where open-clip's weights lie, if they are here, and what goes with them: nothing is fetched behind the
user's back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def cached_weights(config: Mapping[str, Any]) -> str | None:
    """The weights file of an entry of open-clip's list in the local caches, None if it is not there.

    Args:
        config: the entry: ``hf_hub`` (repository, then perhaps a file name) or ``url``.
    """
    hub = str(config.get("hf_hub") or "")
    if hub:
        from huggingface_hub import try_to_load_from_cache

        owner, repository, *file = hub.strip("/").split("/")
        names = file or [
            "open_clip_model.safetensors",
            "open_clip_pytorch_model.safetensors",
            "open_clip_pytorch_model.bin",
        ]
        for name in names:
            found = try_to_load_from_cache(f"{owner}/{repository}", name)
            if isinstance(found, str):
                return found
    url = str(config.get("url") or "")
    if url:
        path = Path.home() / ".cache" / "clip" / url.rsplit("/", 1)[-1]
        if path.is_file():
            return str(path)
    return None


def options_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What open-clip must be told when a listed tag's weights are loaded as a file: it takes the colours'
    mean and spread, the resizing and the activation from the tag alone."""
    return {
        "image_mean": config.get("mean"),
        "image_std": config.get("std"),
        "image_interpolation": config.get("interpolation"),
        "image_resize_mode": config.get("resize_mode"),
        "force_quick_gelu": bool(config.get("quick_gelu")),
    }
