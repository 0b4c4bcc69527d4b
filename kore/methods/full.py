"""Full fine-tuning (the paper's Full-FT): every parameter of the language model is trained.

The vision tower stays frozen, the projector follows the profile. The result is not an adapter: the
changed weights are saved in full, and the base's are kept beside them in memory, so that both answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kore.methods.base import Method, Setup, Traits
from kore.methods.switchable import Switched, read_weights, write_weights


class Full(Method):
    """Train the language model itself."""

    name = "full"
    traits = Traits(
        mergeable=False,
        exportable=False,
        quantised=False,
        why="it changes the base's own weights, so there is no adapter to merge or to hand on",
    )

    def attach(self, setup: Setup) -> None:
        backbone = setup.backbone
        model = backbone.model
        model.requires_grad_(False)
        trained = [model.get_submodule(backbone.family.language), model.get_output_embeddings()]
        if setup.projector and backbone.family.projector:
            trained.append(model.get_submodule(backbone.family.projector))
        for part in trained:
            if part is not None:
                part.requires_grad_(True)
        backbone.model = Switched(model, Swap(model))

    def save(self, model: Any, folder: Path, facts: Mapping[str, Any]) -> None:
        changed = {n: p for n, p in model.inner.named_parameters() if p.requires_grad}
        write_weights(folder, "full", changed, {**facts, **self.facts()})

    def load(self, backbone: Any, folder: Path) -> None:
        saved = read_weights(folder)
        model = backbone.model
        # switched before anything is copied, so that a load that fails halfway can be undone
        backbone.model = Switched(model, Swap(model, names=set(saved))).eval()
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, value in saved.items():
                parameters[name].copy_(value)


class Swap:
    """Puts the base's weights in place for a while; a copy of them is kept on the CPU.

    Args:
        names: the parameters that differ; default: the trainable ones.
    """

    def __init__(self, model: nn.Module, names: set[str] | None = None) -> None:
        self._base: dict[str, Tensor] = {
            n: p.detach().cpu().clone()
            for n, p in model.named_parameters()
            if (p.requires_grad if names is None else n in names)
        }

    @contextmanager
    def __call__(self, model: nn.Module) -> Iterator[None]:
        parameters = {n: p for n, p in model.named_parameters() if n in self._base}
        with gathered(parameters):
            tuned = {n: p.detach().cpu().clone() for n, p in parameters.items()}
            _copy(parameters, self._base)
        try:
            yield
        finally:
            with gathered(parameters):
                _copy(parameters, tuned)

    def undo(self, model: nn.Module) -> None:
        """The base's weights for good."""
        parameters = {n: p for n, p in model.named_parameters() if n in self._base}
        with gathered(parameters):
            _copy(parameters, self._base)


def _copy(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])


@contextmanager
def gathered(parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Whole parameters inside the block, changes kept (does something under ZeRO-3 only)."""
    if not any(hasattr(p, "ds_id") for p in parameters.values()):
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(parameters.values()), modifier_rank=0):
        yield
