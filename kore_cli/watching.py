"""Runs training as a child process under the dashboard; leaving the dashboard leaves training running."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kore.errors import UsageError
from kore_cli.source import tail_lines

SHARE = 0.005  # of a core: a training on all cores waits on each for what its dashboard takes of one
YIELDING = 10  # how much lower than the training's the dashboard's priority is


@dataclass(frozen=True)
class Child:
    """A training process and the file that takes what it prints."""

    process: subprocess.Popen[bytes]
    words: Path

    def complaint(self) -> str | None:
        """Why it ended, if it ended badly."""
        code = self.process.poll()
        if code in (None, 0):
            return None
        lines = tail_lines(self.words, 6)
        return "\n".join([f"training ended with exit code {code}", *lines])


def start(argv: Sequence[str]) -> Child:
    """Start the child in a session of its own, so that neither Ctrl-C nor a closed terminal reaches it."""
    handle, name = tempfile.mkstemp(prefix="kore-train-", suffix=".log")
    with os.fdopen(handle, "wb") as words:
        process = subprocess.Popen(
            list(argv), stdin=subprocess.DEVNULL, stdout=words, stderr=words, start_new_session=True
        )
    return Child(process, Path(name))


def watch(argv: Sequence[str], folder: Path, *, theme: str = "kore-dark", images: str = "auto") -> int:
    """Run `argv` and show its run folder until the user leaves or it fails to start.

    Returns:
        The child's exit code if it has ended, 0 if it goes on.

    Raises:
        UsageError: not on a terminal.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "--watch needs a terminal", hint="without --watch, follow it with: kore dashboard RUN"
        )
    from kore.telemetry import Monitor
    from kore_cli.pictures import prepare

    prepare(images)
    from kore_cli.app import KoreApp
    from kore_cli.source import RunSource

    child = start(argv)
    # training comes first: this process, and not the child that runs already, takes what is left
    with contextlib.suppress(OSError):
        os.nice(YIELDING)
    probe = Monitor(child.process.pid)
    try:
        source = RunSource(folder, probe=probe, complaint=child.complaint)
        KoreApp(source, images=images, theme=theme, share=SHARE).run()  # type: ignore[arg-type]
    finally:
        probe.close()
    return farewell(child, folder)


def farewell(child: Child, folder: Path) -> int:
    """Say how training stands on leaving."""
    from kore_cli.output import Output

    output = Output()
    code = child.process.poll()
    if code is None:
        output.note(f"training goes on (process {child.process.pid}); see it with: kore dashboard {folder}")
        output.note(f"stop it after its step with: kill -INT {child.process.pid}")
        return 0
    if code:
        output.note("\n".join(tail_lines(child.words, 12)))
    child.words.unlink(missing_ok=True)
    return code if code >= 0 else 128 - code
