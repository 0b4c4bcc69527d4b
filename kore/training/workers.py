"""Worker processes that read and process images beside the training."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType
from typing import Any, Literal

from kore.distributed import launched

MOST = 8  # workers of one training process
COST = 20.0  # seconds of work in one process below which starting workers does not pay


def worker_count(setting: int | Literal["auto"], seconds: float) -> int:
    """How many workers to start for work that takes one process so many seconds."""
    if setting != "auto":
        return setting
    return max(1, min(MOST, cores() // launched().local_size)) if seconds > COST else 0


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_worker() -> bool:
    """Whether this is a worker's process."""
    from torch.utils.data import get_worker_info

    return get_worker_info() is not None


def in_order(dataset: Any, workers: int) -> Iterator[Any]:
    """The items of a dataset in order, computed by workers."""
    if not workers:
        for index in range(len(dataset)):
            yield dataset[index]
        return
    import torch
    from torch.utils.data import DataLoader

    yield from DataLoader(
        dataset,
        batch_size=None,
        collate_fn=_same,
        num_workers=workers,
        prefetch_factor=4,
        multiprocessing_context=CONTEXT,
        worker_init_fn=start,
        generator=torch.Generator(),  # the training's random numbers do not depend on it
    )


def start(worker: int, also: Callable[[int], None] | None = None) -> None:
    """Prepare a worker's process: a signal to the whole group lets the training write its checkpoint first.

    The second SIGTERM ends the worker: the training's own, at its end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    if also:
        also(worker)


def _same(item: Any) -> Any:
    return item


class _Process(SpawnProcess):
    """A worker that does not import the program that started it, which may be a script without a guard."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        with _no_program():
            return SpawnProcess._Popen(process_obj)


class _Context(SpawnContext):
    Process = _Process


CONTEXT = _Context()


@contextmanager
def _no_program() -> Iterator[None]:
    program = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = program
