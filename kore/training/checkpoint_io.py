"""A run's weights in a checkpoint: what is trained, and the frozen factors beside it, by name.

Works under ZeRO-3, where each process holds a part of every parameter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from kore.distributed import on_first_rank
from kore.errors import DataError

NAME = "weights.safetensors"


def kept(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that a checkpoint needs: all trainable ones, and every adapter factor."""
    return {n: p for n, p in model.named_parameters() if p.requires_grad or "lora_" in n}


@contextmanager
def whole(parameters: dict[str, nn.Parameter], *, changed: bool = False) -> Iterator[None]:
    """The parameters in full on every process inside the block (does something under ZeRO-3 only).

    Args:
        changed: keep what the first process writes into them.
    """
    if not any(hasattr(p, "ds_id") for p in parameters.values()):
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(parameters.values()), modifier_rank=0 if changed else None):
        yield


def write(model: nn.Module, folder: Path) -> None:
    """Save the kept parameters; every rank calls, rank 0 writes."""
    parameters = kept(model)
    with whole(parameters):
        on_first_rank(lambda: save(parameters, folder / NAME))


def save(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors of any device to a safetensors file."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, path)


def read(model: nn.Module, folder: Path) -> None:
    """Load them back, strictly.

    Raises:
        DataError: other names or shapes than the model's.
    """
    from safetensors.torch import load_file

    saved: dict[str, Tensor] = load_file(folder / NAME)
    parameters = kept(model)
    if saved.keys() != parameters.keys():
        odd = sorted(saved.keys() ^ parameters.keys())
        raise DataError(
            f"{len(odd)} parameters of the checkpoint do not fit, first {odd[0]}", where=str(folder)
        )
    with torch.no_grad(), whole(parameters, changed=True):
        for name, parameter in parameters.items():
            if parameter.shape != saved[name].shape:
                raise DataError(f"{name} has another shape in the checkpoint", where=str(folder))
            parameter.copy_(saved[name].to(parameter.device, parameter.dtype))
