"""Decoder layers run one by one, outside their model, on hidden states that are kept between them.

The model is run once per batch with every decoder layer replaced by a recorder that notes how it was
called and hands its input on. What the recorders saw is all that a layer needs to run alone: the first
hidden states, masks, position embeddings, whatever the architecture passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kore.errors import DataError

_SAME = 1e-2  # of the hidden states' size: what the order of sums in bfloat16 may change


class NotPlainStack(DataError):
    """The model does more between its decoder layers than hand hidden states on."""


@dataclass
class Start:
    """What enters the decoder layers for one batch.

    Attributes:
        hidden: (B, T, d) before the first layer.
        calls: per layer, the positional and keyword arguments beside the hidden states.
        mask: (B, T) true on real tokens.
    """

    hidden: Tensor
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]]
    mask: Tensor

    @property
    def extra_bytes(self) -> int:
        """Bytes of the tensors that the layers' arguments hold, shared ones once."""
        found: dict[int, int] = {}
        for args, kwargs in self.calls:
            for tensor in _tensors([*args, *kwargs.values()]):
                found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return sum(found.values())


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, Mapping):
        yield from _tensors(list(values.values()))


class _Stop(Exception):
    """Raised by the last recorder: what follows the decoder layers is not needed."""


class _Recorder(nn.Module):
    def __init__(
        self, original: nn.Module, seen: list[tuple[Tensor, tuple[Any, ...], dict[str, Any]]]
    ) -> None:
        super().__init__()
        # not registered as a submodule: the recorder has no weights of its own
        object.__setattr__(self, "original", original)
        object.__setattr__(self, "seen", seen)
        object.__setattr__(self, "last", False)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(object.__getattribute__(self, "original"), name)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        seen: list[Any] = object.__getattribute__(self, "seen")
        seen.append((hidden_states, args, kwargs))
        if object.__getattribute__(self, "last"):
            raise _Stop
        return hidden_states


@contextmanager
def recorded(layers: nn.ModuleList) -> Iterator[list[tuple[Tensor, tuple[Any, ...], dict[str, Any]]]]:
    """Put recorders in the place of the decoder layers; yields the list that they write to."""
    originals = list(layers)
    seen: list[tuple[Tensor, tuple[Any, ...], dict[str, Any]]] = []
    try:
        for index, layer in enumerate(originals):
            recorder = _Recorder(layer, seen)
            object.__setattr__(recorder, "last", index == len(originals) - 1)
            layers[index] = recorder
        yield seen
    finally:
        for index, layer in enumerate(originals):
            layers[index] = layer


def start(model: nn.Module, layers: nn.ModuleList, inputs: dict[str, Tensor]) -> Start:
    """Run everything before the decoder layers (embeddings, vision tower, projector) on one batch.

    Raises:
        NotPlainStack: the model changes hidden states between its layers or calls them out of order, so
            its layers cannot be run alone.
    """
    with recorded(layers) as seen, suppress(_Stop):
        model(**inputs, use_cache=False)
    if len(seen) != len(layers) or any(h is not seen[0][0] for h, _, _ in seen):
        raise NotPlainStack(
            f"{type(model).__name__} does more between its decoder layers than hand hidden states on"
        )
    hidden = seen[0][0]
    mask = inputs["attention_mask"].bool()
    if hidden.shape[:2] != mask.shape:
        raise NotPlainStack(
            f"{type(model).__name__}: {tuple(mask.shape)} tokens became {tuple(hidden.shape[:2])} states"
        )
    return Start(hidden, [(args, kwargs) for _, args, kwargs in seen], mask)


def run_layer(layer: nn.Module, hidden: Tensor, call: tuple[tuple[Any, ...], dict[str, Any]]) -> Tensor:
    """One decoder layer on one batch, (B, T, d) to (B, T, d)."""
    args, kwargs = call
    out = layer(hidden, *args, **kwargs)
    result = out[0] if isinstance(out, tuple) else out
    assert isinstance(result, Tensor)
    return result


def run_whole(model: nn.Module, layers: nn.ModuleList, inputs: dict[str, Tensor]) -> Tensor | None:
    """The model itself up to its last decoder layer, whose output it returns if that layer was called."""
    last: list[Tensor] = []

    def stop(module: nn.Module, args: Any, out: Any) -> None:
        last.append(out[0] if isinstance(out, tuple) else out)
        raise _Stop

    handle = layers[-1].register_forward_hook(stop)
    try:
        with suppress(_Stop):
            model(**inputs, use_cache=False)
    finally:
        handle.remove()
    return last[0] if last else None


def is_plain_stack(model: nn.Module, layers: nn.ModuleList, inputs: dict[str, Tensor]) -> bool:
    """Whether the decoder layers, run one by one on a batch, give what the model itself gives."""
    try:
        begun = start(model, layers, inputs)
    except NotPlainStack:
        return False
    hidden = begun.hidden
    for layer, call in zip(layers, begun.calls, strict=True):
        hidden = run_layer(layer, hidden, call)
    expected = run_whole(model, layers, inputs)
    if expected is None or expected.shape != hidden.shape:
        return False
    kept = expected[begun.mask].float()
    return bool((hidden[begun.mask].float() - kept).norm() <= _SAME * kept.norm())


class HiddenCache:
    """Hidden states of all batches between two groups of layers, in memory or on disk.

    Args:
        folder: where to keep them; None keeps them in memory.
        device: where the layers want them.
    """

    def __init__(self, folder: Path | None, device: torch.device) -> None:
        self._folder = folder
        self._device = device
        self._held: dict[int, Tensor] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def put(self, batch: int, hidden: Tensor) -> None:
        """Keep a batch's hidden states, replacing older ones."""
        if self._folder is None:
            self._held[batch] = hidden
            return
        from safetensors.torch import save_file

        save_file({"hidden": hidden.contiguous()}, self._folder / f"{batch:06d}.safetensors")

    def get(self, batch: int) -> Tensor:
        """A batch's hidden states."""
        if self._folder is None:
            return self._held[batch]
        from safetensors.torch import load_file

        path = self._folder / f"{batch:06d}.safetensors"
        # "cuda" without an index is the first GPU to safetensors, not the current one
        return load_file(path)["hidden"].to(self._device)

    def clear(self) -> None:
        """Let go of everything."""
        self._held.clear()
        if self._folder is not None and self._folder.exists():
            import shutil

            shutil.rmtree(self._folder)


@contextmanager
def exact_products() -> Iterator[None]:
    """Single precision that is single precision on GPUs too."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)


@contextmanager
def quiet_inference() -> Iterator[None]:
    """No gradients, and exact products."""
    with exact_products(), torch.inference_mode():
        yield
