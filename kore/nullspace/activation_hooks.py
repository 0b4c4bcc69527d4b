"""Where covariances are taken: the distinct inputs of a decoder layer's linears.

q, k and v read one tensor, gate and up another: one matrix serves each group. The groups are found by
the identity of the input tensor during a forward pass, never by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from kore.errors import DataError
from kore.nullspace.accumulator import Accumulator


@dataclass
class Tap:
    """One distinct input of one layer while it is being summed."""

    linears: list[str]
    sum: Accumulator


def site_name(linears: list[str]) -> str:
    """A short name from the linears that share the input: qkv, o, gate_up, down."""
    stems = [name.rpartition(".")[2].removesuffix("_proj").removeprefix("in_proj_") for name in linears]
    return ("" if all(len(stem) == 1 for stem in stems) else "_").join(stems)


def site_names(groups: Sequence[list[str]]) -> list[str]:
    """Distinct names for one layer's groups of linears: those alike say which module they belong to."""
    short = [site_name(linears) for linears in groups]
    return [
        name if short.count(name) == 1 else f"{linears[0].split('.')[-2]}_{name}"
        for name, linears in zip(short, groups, strict=True)
    ]


class LayerTaps:
    """Sums the inputs of one decoder layer's linears while the layer runs.

    Use as a context manager around the layer's forward passes, calling `start(mask)` before and
    `end()` after each.

    Args:
        linears: full name -> linear, all of one layer.
        make: makes the accumulator for a width.
        normalise: divide each sample by its largest activation, as the released code does.
    """

    def __init__(
        self,
        linears: Mapping[str, nn.Linear],
        make: Callable[[int], Accumulator],
        *,
        normalise: bool = False,
    ) -> None:
        self.taps: list[Tap] = []
        self._linears = dict(linears)
        self._make = make
        self._normalise = normalise
        self._tap_of: dict[str, Tap] = {}
        self._seen: list[tuple[Tensor, Tap]] = []
        self._mask: Tensor | None = None
        self._running = False
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        for name, module in self._linears.items():
            self._handles.append(module.register_forward_pre_hook(self._hook(name), with_kwargs=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._seen.clear()

    def start(self, mask: Tensor | None) -> None:
        """A forward pass begins; `mask` (B, T) is true on the tokens that count, None counts all."""
        self._mask = mask
        self._running = True
        self._seen.clear()

    def end(self) -> None:
        """The pass is over; lets go of its tensors."""
        self._running = False
        self._seen.clear()

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._meet(name, args[0] if args else kwargs["input"])

        return before

    def _meet(self, name: str, x: Tensor) -> None:
        # the tensors in _seen are kept alive, so identity cannot be confused by reused memory
        shared = next((tap for tensor, tap in self._seen if tensor is x), None)
        known = self._tap_of.get(name)
        if known is not None and shared is not None and known is not shared:
            raise DataError("its input is shared in one batch and not in another", where=name)
        if shared is not None:
            if known is None:
                shared.linears.append(name)
                self._tap_of[name] = shared
            return
        tap = known or Tap([name], self._make(x.shape[-1]))
        if known is None:
            self.taps.append(tap)
            self._tap_of[name] = tap
        self._seen.append((x, tap))
        try:
            self._add(tap, x)
        except DataError as error:
            raise DataError(error.message, where=name, hint=error.hint) from error

    def _add(self, tap: Tap, x: Tensor) -> None:
        """Add the unmasked rows of x (B, T, d)."""
        if not self._running:
            raise DataError("it ran outside a forward pass of the model", hint="call the whole model")
        if self._mask is None:
            mask = torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device)
        else:
            mask = self._mask.to(x.device)
            if x.dim() == 2 and len(x) == mask.numel():  # tokens of all samples in one row (beside experts)
                x = x.view(*mask.shape, x.shape[-1])
        if x.shape[:-1] != mask.shape:
            raise DataError(f"its input is {tuple(x.shape)}, the tokens are {tuple(mask.shape)}")
        if not self._normalise:
            tap.sum.add(x[mask])
            return
        for sample, kept in zip(x, mask, strict=True):
            rows = sample[kept].to(torch.float32)
            if rows.numel():
                tap.sum.add(rows / rows.max().abs().clamp_min(torch.finfo(torch.float32).tiny))
