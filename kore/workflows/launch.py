"""Several processes: who am I, and how they begin together. The launcher is torchrun or deepspeed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from kore.patience import PATIENCE


@dataclass(frozen=True)
class Place:
    """This process among those of the launch."""

    rank: int
    local_rank: int
    world: int

    @property
    def first(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0


def place() -> Place:
    """From the launcher's environment; a process of its own without one."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    return Place(rank, int(os.environ.get("LOCAL_RANK", str(rank))), world)


@contextmanager
def silent_stdout() -> Iterator[None]:
    """Standard output leads to standard error inside the block, for compiled code and children too:
    DeepSpeed tells there what it builds, and standard output is data."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)


@contextmanager
def together(zero: int) -> Iterator[Place]:
    """Join the processes, before any model is built, so that all know how many they are.

    Args:
        zero: ZeRO stage; above 0 DeepSpeed joins them.
    """
    here = place()
    if here.world == 1 and not zero:
        yield here
        return
    import torch

    if here.world == 1:
        # DeepSpeed wants a group even of one
        for name, value in {
            "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0",
        }.items():  # fmt: skip
            os.environ.setdefault(name, value)
    with silent_stdout() if zero else nullcontext():
        mine = _join(here, zero)
        try:
            yield here
        finally:
            if mine:
                torch.distributed.destroy_process_group()


def _join(here: Place, zero: int) -> bool:
    """Make the process group; False where there was one."""
    import torch

    if torch.distributed.is_initialized():
        return False
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(here.local_rank)
    if zero:
        import deepspeed

        deepspeed.init_distributed(dist_backend=backend, verbose=False, timeout=PATIENCE)
    else:
        torch.distributed.init_process_group(backend, timeout=PATIENCE)
    return True


def wait() -> None:
    """Until every process is here."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
