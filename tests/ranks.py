"""What `kore.distributed` does on several ranks; every rank prints its results as one JSON object."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import torch

from kore.distributed import (
    any_rank,
    barrier,
    broadcast,
    current,
    join,
    on_first_rank,
    sum_in_place,
    sum_over_ranks,
)
from kore.errors import KoreError, MissingArtefact


class NeedsTwo(MissingArtefact):
    """An error whose constructor differs from its base's."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}", hint="make both", where="a.json:1")


def failing(error: BaseException) -> dict[str, Any]:
    """What every rank raises when rank 0 raises `error`."""

    def work() -> None:
        raise error

    try:
        on_first_rank(work)
    except BaseException as raised:
        kore = isinstance(raised, KoreError)
        return {
            "type": type(raised).__name__,
            "text": str(raised),
            "hint": raised.hint if isinstance(raised, KoreError) else None,
            "exit_code": raised.exit_code if isinstance(raised, KoreError) else None,
            "same": raised is error,
            "kore": kore,
        }
    return {}


def text_of(work: Callable[[], object]) -> str:
    """What `work` raises on this rank."""
    try:
        on_first_rank(work)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def main() -> None:
    """Run everything in one group."""

    class Local(MissingArtefact):
        """A class that no other process can import."""

    with join() as world:
        matrix = torch.full((2, 2), world.rank + 1.0)
        sum_in_place(matrix)
        with join() as inner:
            nested = inner == world
        result = {
            "nested": nested and current() == world,
            "broadcast": broadcast(f"of {world.rank}"),
            "any": [any_rank(world.rank == 1), any_rank(False)],
            "sum": sum_over_ranks([world.rank, 0.5]),
            "matrix": matrix.flatten().tolist(),
            "result": on_first_rank(lambda: [world.rank, "made"]),
            "kore": failing(NeedsTwo("a", "b")),
            "local": failing(Local("gone", hint="look")),
            "other": failing(OSError(28, "No space left on device")),
            "interrupt": failing(KeyboardInterrupt()),
            "unpicklable": text_of(lambda: lambda: None),
        }
        barrier()
    result["left"] = current().size
    with join() as again:
        result["again"] = sum_over_ranks([1])[0] == again.size
    os.write(1, f"{json.dumps(result)}\n".encode())  # one write: ranks share the pipe


if __name__ == "__main__":
    main()
