"""KORE (paper 4.3, equations 5 to 8): B trained, A frozen in the null space of old knowledge.

For each linear, W* = W0 + B A with A = sqrt(S*) V*^T of the projected weight; A C = 0 for the covariance
C of old inputs, so what the old inputs see does not change. The base stays untouched, alpha = r, no
dropout, no weight decay. Defaults: as the paper's table 7.

`thaw_a` is the paper's ablation "A not frozen": with A trained too, the residual form matters:
W0 - B0 A0 stays fixed while B A moves away from B0 A0. `constraint=False` is the ablation without the
null space: LoRA's random A, trained, at the same trainable count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kore.errors import UsageError
from kore.methods.method import Method, Setup, Traits
from kore.models import adapter


class Kore(Method):
    """Train B against a frozen A.

    Args:
        thaw_a: train A as well.
        constraint: False takes no factors and trains a plain LoRA.
    """

    name = "kore"
    traits = Traits(needs_factors=True)

    def __init__(
        self, values: Mapping[str, Any] | None = None, *, thaw_a: bool = False, constraint: bool = True
    ) -> None:
        super().__init__(values)
        self.thaw_a = thaw_a
        self.constraint = constraint

    def attach(self, setup: Setup) -> None:
        backbone = setup.backbone
        if not self.constraint:
            backbone.model = adapter.attach(
                backbone.model, backbone.family, rank=setup.lora_rank, projector=setup.projector
            )
            return
        if setup.factors is None:
            raise UsageError("kore needs a covariance", hint="name one with --covariance DIR")
        ranks = {name: len(a) for name, a in setup.factors.items()}
        backbone.model = adapter.attach(
            backbone.model, backbone.family, rank=ranks, a=setup.factors, projector=setup.projector
        )
        if self.thaw_a:
            for name, parameter in backbone.model.named_parameters():
                if ".lora_A." in name:
                    parameter.requires_grad_(True)

    def check(self, model: Any) -> None:
        if self.constraint and not self.thaw_a:
            adapter.assert_frozen(model)

    def facts(self) -> dict[str, Any]:
        return {"frozen_a": self.constraint and not self.thaw_a, "constraint": self.constraint}
