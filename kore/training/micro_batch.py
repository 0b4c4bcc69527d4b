"""Find the micro-batch: start from the memory estimate, halve it on out-of-memory, remember what worked."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.distributed import any_rank
from kore.errors import DataError
from kore.io.files import hash_json, read_json, write_json
from kore.training.hardware import USABLE, memory_of
from kore.training.hf_args import Split

if TYPE_CHECKING:
    import torch

    from kore.training.estimate import Plan


def micro_batch(
    parts: Split,
    plan_of: Callable[[Split], Plan],
    attempt: Callable[[Split], None] | None,
    device: torch.device,
    identity: list[Any],
) -> Split:
    """The largest micro-batch that fits.

    Args:
        parts: with the largest micro-batch to consider.
        plan_of: the plan of a division.
        attempt: runs a forward and backward pass; raises on out-of-memory. None: the estimate decides.
        identity: what the memory of a pass depends on, besides the device.
    """
    sizes = list(_divisions(parts))
    key = hash_json([*identity, plan_of(parts).hardware.device, memory_of(device)])
    remembered = _read().get(key)
    for size in sizes:
        if size.micro == remembered:
            return size
    size = _estimated(sizes, plan_of, memory_of(device))
    while attempt is not None and any_rank(_fails(attempt, size)):
        if size.micro == 1:
            raise DataError(
                "out of memory with one sample per forward pass",
                hint="lower train.max_length, or --set train.gradient_checkpointing=true",
            )
        size = next(s for s in sizes if s.micro <= size.micro // 2)
    if attempt is not None:
        _remember(key, size.micro)
    return size


def _divisions(parts: Split) -> Iterator[Split]:
    share = parts.micro * parts.accumulate
    for micro in range(parts.micro, 0, -1):
        if share % micro == 0:
            yield replace(parts, micro=micro, accumulate=share // micro)


def _estimated(sizes: list[Split], plan_of: Callable[[Split], Plan], memory: int) -> Split:
    """The largest that fits by the estimate; gradient checkpointing only where nothing fits without."""
    plans = [(size, plan_of(size)) for size in sizes]
    fitting = [(s, p) for s, p in plans if sum(p.memory.values()) <= USABLE * memory]
    plain = [s for s, p in fitting if not p.hardware.checkpointing]
    return [*plain, *(s for s, _ in fitting), sizes[-1]][0]


def _fails(attempt: Callable[[Split], None], size: Split) -> bool:
    """Whether a pass runs out of memory."""
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    failed = False
    try:
        attempt(size)
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
        failed = True
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return failed


def _path() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kore" / "micro_batch.json"


def _read() -> dict[str, int]:
    with suppress(DataError, OSError):
        value = read_json(_path())
        return value if isinstance(value, dict) else {}
    return {}


def _remember(key: str, micro: int) -> None:
    with suppress(DataError, OSError):  # only a start for the next run
        _path().parent.mkdir(parents=True, exist_ok=True)
        write_json(_path(), {**_read(), key: micro})
