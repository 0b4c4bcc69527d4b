"""Several processes on one calibration (torchrun): each takes whole batches, sums are reduced at the end."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from kore.errors import KoreError, UsageError
from kore.patience import PATIENCE

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those that work together."""

    rank: int = 0
    world: int = 1

    @property
    def here(self) -> int:
        """Processes on this machine."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", self.world)) if self.world > 1 else 1

    @staticmethod
    def current() -> Ranks:
        """From torch.distributed, if it is initialised."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return Ranks()
        return Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size())

    @staticmethod
    def join() -> Ranks:
        """Join the group that torchrun's environment describes; alone without it."""
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized():
            if torch.cuda.is_available():
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
                torch.distributed.init_process_group("nccl", timeout=PATIENCE)
            else:
                torch.distributed.init_process_group("gloo", timeout=PATIENCE)
        return Ranks.current()

    def share(self, batches: int) -> list[int]:
        """The batches of this process.

        Raises:
            UsageError: fewer batches than processes.
        """
        if batches < self.world:
            raise UsageError(
                f"{batches} batches are too few for {self.world} processes", hint="--set calibrate.batch=1"
            )
        return list(range(self.rank, batches, self.world))

    def first(self, work: Callable[[], T]) -> T:
        """Let the first process do `work`, and give its result, or its error, to all."""
        if self.world == 1:
            return work()
        box: list[T | KoreError | None] = [None]
        if self.rank == 0:
            try:
                box[0] = work()
            except KoreError as error:
                box[0] = error
        torch.distributed.broadcast_object_list(box, src=0)
        result = box[0]
        if isinstance(result, KoreError):
            raise result
        return result  # type: ignore[return-value]

    def barrier(self) -> None:
        """Wait for the others."""
        if self.world > 1:
            torch.distributed.barrier()
