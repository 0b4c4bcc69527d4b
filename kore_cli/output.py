"""The only place that prints: data to stdout, everything else to stderr, colour and progress on terminals.

rich is imported on use, never at start.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from kore.errors import KoreError


class Output:
    """Where a command's words go.

    Args:
        json_mode: data as JSON even on a terminal.
        quiet: nothing on stderr but errors.
    """

    def __init__(self, *, json_mode: bool = False, quiet: bool = False) -> None:
        self.json_mode = json_mode
        self.quiet = quiet
        self.human = sys.stdout.isatty() and not json_mode
        self.live = sys.stderr.isatty() and not quiet and os.environ.get("TERM") != "dumb"

    def note(self, text: str) -> None:
        """One line for a person, on stderr."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """A warning, on stderr."""
        self.note(f"warning: {text}")

    def line(self, text: str) -> None:
        """One line of data as it is, on stdout."""
        print(text, flush=True)

    def record(self, value: object) -> None:
        """One JSON line on stdout."""
        print(json.dumps(value, ensure_ascii=False), flush=True)

    def result(self, value: Mapping[str, Any], text: str | None = None) -> None:
        """A command's result: JSON when asked for or piped, `text` (or key: value lines) on a terminal."""
        if not self.human:
            self.record(value)
            return
        self.line(text if text is not None else "\n".join(f"{k}: {_cell(v)}" for k, v in value.items()))

    def table(
        self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], title: str = "", *, err: bool = False
    ) -> None:
        """A table for people; numbers right-aligned."""
        from rich.console import Console
        from rich.table import Table

        table = Table(
            title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold"
        )
        for column in columns:
            numeric = all(isinstance(row.get(column), (int, float, type(None))) for row in rows)
            table.add_column(column, justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*(_cell(row.get(column)) for column in columns))
        if err and self.quiet:
            return
        Console(
            stderr=err, width=None if (sys.stderr if err else sys.stdout).isatty() else 120, highlight=False
        ).print(table)

    @contextmanager
    def progress(self, label: str, total: int | None = None) -> Iterator[Callable[..., None]]:
        """A progress bar on a terminal, nothing elsewhere. Yields ``advance(n=1, note="")``."""
        if not self.live:
            start = time.monotonic()
            yield lambda n=1, note="": None
            self.note(f"{label}: done in {time.monotonic() - start:.0f} s")
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = [
            TextColumn("{task.description}"),
            BarColumn(24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        ]
        with Progress(*columns, console=Console(stderr=True), transient=False) as bar:
            task = bar.add_task(label, total=total, note="")

            def advance(n: float = 1, note: str = "") -> None:
                bar.update(task, advance=n, note=note)

            yield advance

    def error(self, error: KoreError) -> None:
        """An expected failure: one to three lines, on stderr."""
        fail(error)


def fail(error: KoreError) -> None:
    """Print an expected failure as one to three lines on stderr."""
    lines = error.lines()
    print(f"error: {lines[0]}", file=sys.stderr)
    for line in lines[1:]:
        print(f"  {line}", file=sys.stderr)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) < 1000 and (value == 0 or abs(value) >= 0.01) else f"{value:.3g}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)
