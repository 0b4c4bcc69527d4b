"""Progress of the stages: a bar each on a terminal, lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kore.progress import Progress, each_line, reminded

if TYPE_CHECKING:
    from kore_cli.output import Output


@contextmanager
def story(out: Output) -> Iterator[Progress]:
    """Yield a Progress that draws bars on a terminal; elsewhere it prints a line for each finished stage, and
    for a long one how far it is."""
    if out.live:
        yield from _live()
    else:
        with reminded(each_line(out.note)) as report:
            yield report


def _live() -> Iterator[Progress]:
    from rich import progress as rich_progress
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description:<22}"),
        BarColumn(24, complete_style="cyan", finished_style="green"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as bars:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int | None = None, note: str = "") -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, note=note)
            bars.update(tasks[stage], completed=done, total=total, note=note)
            if total is not None and done >= total:
                bars.stop_task(tasks[stage])

        yield report
