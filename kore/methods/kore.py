"""KORE (paper 4.3, equations 5 to 8): B trained, A frozen in the null space of old knowledge.

For each linear, W* = W0 + B A with A = sqrt(S*) V*^T of the projected weight; A C = 0 for the covariance
C of old inputs, so what the old inputs see does not change. The base stays untouched, alpha = r, no
dropout, no weight decay. Defaults: as the paper's table 7.

`thaw_a` is the paper's ablation "A not frozen". With A trained too the two forms part ways, so it takes
the residual one: W0 - B0 A0 is held, B A starts at B0 A0, with B0 = W0 A0^T (A0 A0^T)^-1. It is kept as a
LoRA of rank 2 r, [B, -B0] [A; A0], whose second halves do not move. `constraint=False` is the ablation
without the null space: LoRA's random A, trained, at the same trainable count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kore.adapters import lora as adapter
from kore.adapters.lora_layers import lora_layers
from kore.adapters.param_budget import size
from kore.errors import UsageError
from kore.methods.base import Method, Setup, Traits


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
        if self.thaw_a:
            self._attach_residual(setup, setup.factors)
            return
        backbone.model = adapter.attach(
            backbone.model, backbone.family, rank=ranks, a=setup.factors, projector=setup.projector
        )

    def _attach_residual(self, setup: Setup, factors: Mapping[str, Tensor]) -> None:
        backbone = setup.backbone
        before = {name: backbone.weight(name).double().cpu() for name in factors}
        double = {name: 2 * len(a) for name, a in factors.items()}
        backbone.model = adapter.attach(
            backbone.model, backbone.family, rank=double, projector=setup.projector
        )
        for name, layer in lora_layers(backbone.model).items():
            a0 = factors[name].double()  # (r, d_in)
            # a W0 that is zero on some of A's directions leaves rows of A zero: the smallest B0 of all
            b0 = torch.linalg.lstsq(a0.T, before[name].T, driver="gelsd").solution.T  # (d_out, r)
            a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            with torch.no_grad():
                a.copy_(torch.cat([a0, a0]))
                b.copy_(torch.cat([b0, -b0], dim=1))
            rank = len(a0)
            a.register_hook(lambda g, r=rank: g * (torch.arange(len(g), device=g.device) < r)[:, None])
            b.register_hook(lambda g, r=rank: g * (torch.arange(g.shape[1], device=g.device) < r))

    def held(self, model: Any) -> int:
        if not self.thaw_a or not self.constraint:
            return 0
        return int(sum(size(p) for n, p in model.named_parameters() if ".lora_" in n) // 2)

    def check(self, model: Any) -> None:
        if self.constraint and not self.thaw_a:
            adapter.assert_frozen(model)

    def facts(self) -> dict[str, Any]:
        return {"frozen_a": self.constraint and not self.thaw_a, "constraint": self.constraint}
