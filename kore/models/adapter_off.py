"""The base model's answers from a model with an adapter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def adapter_off(model: Any) -> Iterator[None]:
    """The base model inside the block; what was trainable before is trainable after, nothing else."""
    if not hasattr(model, "disable_adapter"):
        yield
        return
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    try:
        with model.disable_adapter():
            yield
    finally:
        for name, p in model.named_parameters():
            p.requires_grad_(before[name])
