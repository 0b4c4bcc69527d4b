"""How stages say where they are, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told after each piece of work.

    Args:
        stage: augment, calibrate, train KORE, ...: one line of the story each.
        done: pieces finished; equal to `total` when the stage is over.
        total: pieces in all, None while unknown.
        note: what to say beside the bar (loss, cost, the result).
    """

    def __call__(self, stage: str, done: int, total: int | None = None, note: str = "") -> None: ...


def silent(stage: str, done: int, total: int | None = None, note: str = "") -> None:
    """Listens to nothing."""
