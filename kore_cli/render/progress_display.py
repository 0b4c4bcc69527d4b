"""Progress of the stages: a bar each on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kore.progress import Progress
    from kore_cli.output import Output


EVERY = 30.0  # seconds between lines, where no bar is drawn


@contextmanager
def story(out: Output) -> Iterator[Progress]:
    """Yield a Progress that draws bars on a terminal; elsewhere it prints a line for each finished stage, and
    for a long one how far it is."""
    yield from (_live() if out.live else _lines(out))


def _live() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description:<22}"),
        BarColumn(24, complete_style="cyan", finished_style="green"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as bars:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int | None = None, note: str = "") -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, note=note)
            bars.update(tasks[stage], completed=done, total=total, note=note)
            if total is not None and done >= total:
                bars.stop_task(tasks[stage])

        yield report


def _lines(out: Output) -> Iterator[Progress]:
    started: dict[str, float] = {}
    finished: set[str] = set()
    printed = time.monotonic()

    def report(stage: str, done: int, total: int | None = None, note: str = "") -> None:
        nonlocal printed
        now = time.monotonic()
        start = started.setdefault(stage, now)
        tail = f": {note}" if note else ""
        if total is not None and done >= total and stage not in finished:
            finished.add(stage)
            out.note(f"{stage} ({now - start:.0f} s){tail}")
            printed = now
        elif now - printed >= EVERY and stage not in finished:
            out.note(f"{stage} {done}{f' of {total}' if total else ''}{tail}")
            printed = now

    yield report
