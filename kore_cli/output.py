"""The only place that prints: data to stdout, everything else to stderr, colour and progress on terminals.

rich is imported on use, never at start.
"""

from __future__ import annotations

import io
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from kore.errors import Interrupted, KoreError
from kore.io.files import json_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from kore.progress import Progress


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

    def piece(self, text: str) -> None:
        """A part of a line of data, on stdout at once."""
        print(text, end="", flush=True)

    def record(self, value: object) -> None:
        """One JSON line on stdout."""
        print(json_text(value), flush=True)

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
            title=title or None,
            title_justify="left",
            box=None,
            pad_edge=False,
            header_style="" if os.environ.get("NO_COLOR") else "bold",
            title_style="" if os.environ.get("NO_COLOR") else "italic",
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

    def drawing(self, drawn: RenderableType) -> None:
        """What rich draws, for people, on stdout."""
        from rich.console import Console

        Console(highlight=False).print(drawn)

    def pictures(self, titled: Sequence[tuple[str, Sequence[Sequence[float]]]]) -> None:
        """Matrices side by side as heat maps, in colour or in shades."""
        from rich.console import Console
        from rich.segment import Segment, Segments

        from kore_cli.widgets.heatmap import side_by_side

        console = Console(highlight=False)
        colour = console.color_system in ("256", "truecolor") and not console.no_color
        for cells in side_by_side(titled, console.width, colour=colour):
            console.print(Segments([*cells, Segment.line()]), end="")

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

    @contextmanager
    def steps(self, label: str) -> Iterator[Progress]:
        """A sink of progress that draws one bar, whatever the stage; its length becomes known later."""
        with ExitStack() as stack:
            advance: Callable[..., None] | None = None
            before = 0

            def report(stage: str, done: int, total: int | None = None, note: str = "") -> None:
                nonlocal advance, before
                if advance is None:
                    advance = stack.enter_context(self.progress(label, total))
                advance(done - before, note)
                before = done

            yield report


def keep_stdout_clean() -> None:
    """Libraries that talk do so on stderr, or not at all: standard output is data.

    DeepSpeed, wherever transformers finds it, logs to standard output as soon as it is imported; a
    filter on its logger outlives the handler and level that it sets itself then.
    """
    import logging
    import warnings

    if isinstance(sys.stdout, io.TextIOWrapper):
        # records are UTF-8 whatever the locale; names of files may be any bytes
        encoding = sys.stdout.encoding if sys.stdout.isatty() else "utf-8"
        sys.stdout.reconfigure(encoding=encoding, errors="surrogateescape")

    def to_stderr(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            print(record.getMessage(), file=sys.stderr)
        return False

    logging.getLogger("DeepSpeed").addFilter(to_stderr)
    if os.environ.get("KORE_DEBUG") != "1":
        warnings.simplefilter("ignore", FutureWarning)


def fail(error: KoreError) -> None:
    """Print an expected failure as one to three lines on stderr."""
    complain(*error.lines(), word="stopped" if isinstance(error, Interrupted) else "error")


def complain(what: str, hint: str | None = None, *, word: str = "error") -> None:
    """Print what went wrong and the next step, one line each, on stderr."""
    lines = [f"{word}: {what}", *([f"  {hint}"] if hint else [])]
    with suppress(OSError):  # nobody listens on stderr either
        print(*(" ".join(line.splitlines()) for line in lines), sep="\n", file=sys.stderr, flush=True)


def trace(error: BaseException) -> None:
    """With ``KORE_DEBUG=1``, where an error that is told in words came from, on stderr."""
    if os.environ.get("KORE_DEBUG") == "1":
        traceback.print_exception(error)


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
