"""Runs training as a child process under the dashboard; leaving the dashboard leaves training running."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kore.errors import Interrupted, UsageError
from kore_cli.dashboard.watcher import tail_lines

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
        if not code:
            return None
        how = f"training ended with exit code {code}" if code > 0 else f"training was ended by signal {-code}"
        with contextlib.suppress(OSError):  # what lies among temporary files may be cleared away
            return "\n".join([how, *tail_lines(self.words, 6)])
        return how


def start(argv: Sequence[str]) -> Child:
    """Start the child in a session of its own, so that neither Ctrl-C nor a closed terminal reaches it."""
    handle, name = tempfile.mkstemp(prefix="kore-train-", suffix=".log")
    with os.fdopen(handle, "wb") as words:
        process = subprocess.Popen(
            list(argv), stdin=subprocess.DEVNULL, stdout=words, stderr=words, start_new_session=True
        )
    return Child(process, Path(name))


def need_terminal() -> None:
    """Refuse what only a terminal can show.

    Raises:
        UsageError: not on a terminal.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "--watch needs a terminal", hint="without --watch, follow it with: kore dashboard RUN"
        )


def watch(argv: Sequence[str], folder: Path, *, theme: str = "kore-dark", images: str = "auto") -> int:
    """Run `argv` and show its run folder until the user leaves.

    Returns:
        The child's exit code if it has ended, 0 if it goes on.

    Raises:
        UsageError: not on a terminal.
    """
    need_terminal()
    from kore.telemetry import Monitor
    from kore_cli.widgets.image import prepare

    prepare(images)
    from kore_cli.dashboard.app import KoreApp
    from kore_cli.dashboard.watcher import RunSource

    child = start(argv)
    # training comes first: this process, and not the child that runs already, takes what is left
    with contextlib.suppress(OSError):
        os.nice(YIELDING)
    probe = Monitor(child.process.pid)

    def source(of: Path) -> RunSource:
        own = of.resolve() == folder.resolve()
        return RunSource(of, probe=probe, complaint=child.complaint if own else lambda: None)

    try:
        KoreApp(
            source(folder),
            images=images,
            theme=theme,
            share=SHARE,
            new_source=source,
        ).until_left()
    finally:
        probe.close()
        code = farewell(child, folder)
    return code


def farewell(child: Child, folder: Path) -> int:
    """Say how training stands on leaving; what it said is kept unless it ended well."""
    from kore_cli.output import Output

    output = Output()
    code = child.process.poll()
    if code is None:
        seen = f"kore dashboard {shlex.quote(str(folder))}"
        output.note(f"training goes on (process {child.process.pid}); see it with: {seen}")
        output.note(f"stop it after its step with: kill -INT {child.process.pid}")
        output.note(f"what it says goes to {child.words}")
        return 0
    if complaint := child.complaint():
        output.note(complaint)
    if code in (0, Interrupted.exit_code):
        child.words.unlink(missing_ok=True)
    else:
        output.note(f"all that it said: {child.words}")
    return code if code >= 0 else 128 - code
