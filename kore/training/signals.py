"""First Ctrl-C or SIGTERM: finish the step, save, leave. Second: at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any


@dataclass
class Wish:
    """Whether somebody wants the run to stop, and which signal said so."""

    signal: str | None = None


@contextmanager
def listening() -> Iterator[Wish]:
    """Turn the first SIGINT or SIGTERM into a wish; the second acts as it always does.

    Outside the main thread signals cannot be heard and nothing changes.
    """
    wish = Wish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    before: dict[int, Any] = {}

    def heard(number: int, _: FrameType | None) -> None:
        wish.signal = signal.Signals(number).name
        for one, old in before.items():
            signal.signal(one, old or signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, heard)
    try:
        yield wish
    finally:
        for one, old in before.items():
            signal.signal(one, old or signal.SIG_DFL)
