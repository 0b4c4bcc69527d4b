"""Plain LoRA (Hu et al. 2022): W* = W0 + B A, both factors trained, A random, B zero at first.

The rank is chosen so that the trainable count is KORE's; alpha = r, no dropout, so that at one learning
rate the two differ in nothing but A.
"""

from __future__ import annotations

from typing import Any

from kore.adapters import lora as adapter
from kore.methods.base import Method, Setup


class Lora(Method):
    """Train A and B of every language linear."""

    name = "lora"

    def attach(self, setup: Setup) -> None:
        backbone = setup.backbone
        backbone.model = adapter.attach(
            backbone.model, backbone.family, rank=setup.lora_rank, projector=setup.projector
        )

    def facts(self) -> dict[str, Any]:
        return {"frozen_a": False}
