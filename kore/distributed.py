"""Several processes of one launch (torchrun, deepspeed): the only user of torch.distributed.

Torch is imported inside functions, so that `launched` costs a light command nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from kore.errors import Interrupted, KoreError, MissingArtefact

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

TIMEOUT = timedelta(days=1)
"""Of every collective operation. While rank 0 builds every A of a large model or queries a judge, the others
wait: torch's ten minutes are too short. The launcher notices a process that died and ends the others."""

_JOINS = count()


@dataclass(frozen=True)
class World:
    """This process among those of the launch."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and output."""
        return self.rank == 0


class FirstRankError(KoreError):
    """Rank 0 failed with an error that is not a `KoreError`."""


def launched() -> World:
    """What the launcher's environment says; one process without a launcher."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    local_rank = int(os.environ.get("LOCAL_RANK", str(rank)))
    return World(rank, size, local_rank, int(os.environ.get("LOCAL_WORLD_SIZE", str(size))))


def current() -> World:
    """The process group that was joined; one process without a group, whatever the environment says."""
    if not _joined():
        return World()
    from torch import distributed

    return replace(launched(), rank=distributed.get_rank(), size=distributed.get_world_size())


@contextmanager
def join(*, deepspeed: bool = False, backend: Literal["nccl", "gloo"] | None = None) -> Iterator[World]:
    """Join the launch's process group for the block, before any model is loaded.

    A group is created where the launch has several processes, and destroyed at the end of the block. Inside a
    group that exists already, nothing is created or destroyed.

    Args:
        deepspeed: set DeepSpeed up too, which needs a group even of one process. What it prints to standard
            output goes to standard error.
        backend: default: nccl with CUDA, gloo otherwise.

    Raises:
        MissingArtefact: an incomplete launch environment.
    """
    here = launched()
    with ExitStack() as stack:
        if deepspeed:
            stack.enter_context(_stdout_to_stderr())
        if not _joined() and (here.size > 1 or deepspeed):
            if here.size == 1:
                stack.enter_context(_single_process_environment())
            _create(here, deepspeed, backend)
            stack.callback(_destroy, deepspeed)
        yield current()


def barrier() -> None:
    """Wait until every rank is here."""
    if _joined():
        from torch import distributed

        distributed.barrier()


def broadcast(value: T) -> T:
    """Rank 0's value (small, picklable) on every rank."""
    if current().size == 1:
        return value
    from torch import distributed

    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def on_first_rank(work: Callable[[], T]) -> T:
    """Run `work` on rank 0 alone; every rank gets its result (small, picklable) or its error.

    Rank 0 raises the original. The other ranks raise a `KoreError` with its type, message, hint and place,
    an interrupt as `Interrupted`, and any other error as `FirstRankError`. `work` must not communicate
    itself: nobody would answer.
    """
    here = current()
    if here.size == 1:
        return work()
    nothing: tuple[Any, _Failure | None] = (None, None)
    if not here.first:
        result, failure = broadcast(nothing)
        if failure is not None:
            raise failure.error()
        return result  # type: ignore[no-any-return]
    try:
        result = work()
        broadcast((result, None))  # refuses what cannot be sent before it sends anything
    except BaseException as error:
        broadcast((None, _Failure.of(error)))
        raise
    return result


def any_rank(flag: bool) -> bool:
    """Whether `flag` is set on any rank; the same answer on all."""
    return sum_over_ranks([float(flag)])[0] > 0


def sum_over_ranks(values: Sequence[float]) -> list[float]:
    """Each value summed over all ranks."""
    if current().size == 1:
        return list(values)
    import torch

    total = torch.tensor(values, dtype=torch.float64)
    sum_in_place(total)
    return list(total.tolist())


def sum_in_place(tensor: Tensor) -> None:
    """Replace `tensor` by its sum over all ranks."""
    if current().size == 1:
        return
    from torch import distributed

    # NCCL reads memory of the GPU only
    sent = tensor.cuda() if distributed.get_backend() == "nccl" else tensor
    distributed.all_reduce(sent)
    if sent is not tensor:
        tensor.copy_(sent)


@dataclass(frozen=True)
class _Failure:
    """An error as it is sent to the other ranks."""

    kind: type[KoreError]
    message: str
    hint: str | None = None
    where: str | None = None

    @staticmethod
    def of(error: BaseException) -> _Failure:
        if isinstance(error, KoreError):
            return _Failure(_importable(type(error)), error.message, error.hint, error.where)
        if isinstance(error, KeyboardInterrupt):
            return _Failure(Interrupted, "rank 0 was interrupted")
        return _Failure(FirstRankError, f"rank 0 failed with {type(error).__name__}: {error}")

    def error(self) -> KoreError:
        error = self.kind.__new__(self.kind)
        KoreError.__init__(error, self.message, hint=self.hint, where=self.where)
        return error


def _importable(kind: type[KoreError]) -> type[KoreError]:
    """The class, or its nearest base that another process can import by name."""
    known = [each for each in kind.__mro__ if issubclass(each, KoreError)]
    importable = (e for e in known if getattr(sys.modules[e.__module__], e.__name__, None) is e)
    return next(importable, KoreError)


def _joined() -> bool:
    if "torch" not in sys.modules:
        return False
    from torch import distributed

    return distributed.is_available() and distributed.is_initialized()


def _create(here: World, deepspeed: bool, backend: str | None) -> None:
    if "MASTER_ADDR" not in os.environ:
        raise MissingArtefact(
            "WORLD_SIZE is set without MASTER_ADDR",
            hint=f"start with: torchrun --nproc-per-node {here.size} -m kore_cli COMMAND ...",
        )
    import torch
    from torch import distributed
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    if torch.cuda.is_available():
        torch.cuda.set_device(here.local_rank)  # else every process would load its model on the first GPU
    backend = backend or ("nccl" if torch.cuda.is_available() else "gloo")
    store, rank, size = next(rendezvous("env://", here.rank, here.size, timeout=TIMEOUT))
    # the launcher's store outlives a group: addresses of an earlier one must not be found there
    store = PrefixStore(f"kore-{next(_JOINS)}", store)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    if deepspeed:
        from deepspeed import init_distributed

        init_distributed(dist_backend=backend, verbose=False, timeout=TIMEOUT)


def _destroy(deepspeed: bool) -> None:
    if deepspeed:  # it keeps references to the group
        from deepspeed.comm import destroy_process_group
    else:
        from torch.distributed import destroy_process_group
    destroy_process_group()


@contextmanager
def _single_process_environment() -> Iterator[None]:
    """What a launcher would set for one process."""
    values = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
    }
    missing = [name for name in values if name not in os.environ]
    os.environ.update({name: values[name] for name in missing})
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Redirect standard output to standard error, for compiled code and children too."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)
