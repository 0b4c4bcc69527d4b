"""MoELoRA (as in CoIN, Chen et al. 2024): a mixture of small LoRAs with a router per linear.

    y = W0 x + scale * sum_i g_i(x) B_i A_i x,   g = softmax(R x)

E experts of rank r / E each, R (E, d_in) without bias, softmax over all experts, per token; no top-k and
no balancing loss, as in released code. A_i ~ N(0, 0.01^2), B_i = 0, scale = 2 (alpha = 2 r). E = 8 there;
fewer where the rank does not allow. r is chosen so that the trainable count, routers included, is KORE's.
The router depends on the input, so the result cannot be merged and no other tool loads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from kore.io.files import read_json
from kore.methods.base import Method, MethodSettings, Setup, Traits
from kore.methods.full import Swap
from kore.methods.switchable import FACTS, Switched, read_weights, write_weights

STD = 0.01


class MoeLoraSettings(MethodSettings):
    experts: int = Field(default=8, ge=2)
    """E; lowered where the rank is smaller."""
    scale: float = Field(default=2.0, gt=0)
    """alpha / r, with the total r."""


class MoeLinear(nn.Module):
    """A frozen linear with a mixture of low-rank experts.

    Args:
        rank: of one expert.
    """

    def __init__(self, base: nn.Linear, experts: int, rank: int, scale: float) -> None:
        super().__init__()
        self.base = base
        self.scale = scale
        self.enabled = True
        device, inputs, outputs = base.weight.device, base.in_features, base.out_features
        self.moe_a = nn.Parameter(torch.randn(experts, rank, inputs, device=device) * STD)
        self.moe_b = nn.Parameter(torch.zeros(experts, outputs, rank, device=device))
        self.moe_router = nn.Parameter(torch.zeros(experts, inputs, device=device))
        nn.init.kaiming_uniform_(self.moe_router, a=5**0.5)

    def gates(self, x: Tensor) -> Tensor:
        """(..., d_in) -> (..., E), summing to one."""
        return (x.float() @ self.moe_router.T).softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x)
        if not self.enabled:
            return y
        experts, rank, _ = self.moe_a.shape
        down = x.float() @ self.moe_a.flatten(0, 1).T  # (..., E r)
        gated = down.view(*x.shape[:-1], experts, rank) * self.gates(x).unsqueeze(-1)
        up = gated.flatten(-2) @ self.moe_b.transpose(1, 2).flatten(0, 1)  # (..., d_out)
        total: Tensor = y + (self.scale * up).to(y.dtype)
        return total


class MoeLora(Method):
    """Train experts and routers."""

    name = "moelora"
    traits = Traits(
        zero=(0, 1, 2),
        mergeable=False,
        exportable=False,
        why="its router depends on the input, so no one matrix could be merged, and PEFT has no such layer; "
        "under ZeRO-3 its stacked experts are untried",
    )
    Settings = MoeLoraSettings

    def attach(self, setup: Setup) -> None:
        assert isinstance(self.settings, MoeLoraSettings)
        widths = [(m.in_features, m.out_features) for m in setup.linears.values()]
        self.experts, self.rank = shape(setup.count, widths, self.settings.experts)
        model = setup.backbone.model
        model.requires_grad_(False)
        projector = setup.backbone.family.projector if setup.projector else None
        whole = {n for n, _ in model.named_parameters() if projector and projector in n}
        install(model, list(setup.linears), self.experts, self.rank, self.settings.scale)
        for name, parameter in model.named_parameters():
            if name in whole:
                parameter.requires_grad_(True)
        setup.backbone.model = Switched(model, Off(Swap(model, whole)))

    def facts(self) -> dict[str, Any]:
        assert isinstance(self.settings, MoeLoraSettings)
        return {"experts": self.experts, "expert_rank": self.rank, "scale": self.settings.scale}

    def save(self, model: Any, folder: Path, facts: Mapping[str, Any]) -> None:
        changed = {n: p for n, p in model.inner.named_parameters() if p.requires_grad}
        write_weights(folder, self.name, changed, {**facts, **self.facts()})

    def load(self, backbone: Any, folder: Path) -> None:
        facts = read_json(folder / FACTS)
        saved = read_weights(folder)
        names = sorted({n.removesuffix(".moe_a") for n in saved if n.endswith(".moe_a")})
        model = backbone.model
        model.requires_grad_(False)
        # switched before anything is changed, so that a load that fails halfway can be undone
        backbone.model = Switched(model, Off(Swap(model, {n for n in saved if ".moe_" not in n})))
        install(model, names, facts["experts"], facts["expert_rank"], facts["scale"])
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, value in saved.items():
                parameters[name].copy_(value)
        backbone.model.eval()


def shape(count: int, widths: list[tuple[int, int]], experts: int) -> tuple[int, int]:
    """Experts and the rank of each, with the trainable count nearest to `count`."""
    inputs = sum(i for i, _ in widths)
    both = sum(i + o for i, o in widths)
    while experts > 2 and count < experts * (inputs + both):
        experts -= 1
    return experts, max(1, round((count - experts * inputs) / (experts * both)))


def install(model: nn.Module, names: list[str], experts: int, rank: int, scale: float) -> None:
    """Put a `MoeLinear` around each named linear."""
    for name in names:
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        _put(model, name, MoeLinear(linear, experts, rank, scale))


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


class Off:
    """The switch: the base, its own projector (`swap`) included."""

    def __init__(self, swap: Swap) -> None:
        self._swap = swap

    @contextmanager
    def __call__(self, model: nn.Module) -> Iterator[None]:
        layers = [m for m in model.modules() if isinstance(m, MoeLinear)]
        for layer in layers:
            layer.enabled = False
        try:
            with self._swap(model):
                yield
        finally:
            for layer in layers:
                layer.enabled = True

    def undo(self, model: nn.Module) -> None:
        """The plain linears again, and the base's own projector."""
        self._swap.undo(model)
        for name, layer in list(model.named_modules()):
            if isinstance(layer, MoeLinear):
                _put(model, name, layer.base)
