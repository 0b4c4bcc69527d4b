"""Load what is to be evaluated: a base, with its adapter on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kore.artifacts.resolve_target import Target
    from kore.config.resolve import ModelSection
    from kore.models.load import Backbone


def load_target(target: Target, section: ModelSection, *, download: bool = False) -> Backbone:
    """Load the base, with the target's adapter on it."""
    from kore.methods.load_adapter import load_adapter
    from kore.models.load import load

    backbone = load(section.model_copy(update={"id": target.model}), download=download)
    if target.adapter is not None:
        load_adapter(backbone, target.adapter)
    return backbone
