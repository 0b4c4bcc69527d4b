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

SHARE = 0.005  # of a core: training on all cores waits for each core that the dashboard takes time from
NICE = 10  # how much lower the dashboard's priority is than the training's


@dataclass(frozen=True)
class Child:
    """A training process and the file with its output."""

    process: subprocess.Popen[bytes]
    output: Path

    def complaint(self) -> str | None:
        """Why it ended, if it ended badly."""
        code = self.process.poll()
        if not code:
            return None
        how = f"training ended with exit code {code}" if code > 0 else f"training was ended by signal {-code}"
        with contextlib.suppress(OSError):  # temporary files may be deleted
            return "\n".join([how, *tail_lines(self.output, 6)])
        return how


def start(argv: Sequence[str]) -> Child:
    """Start the child in its own session, so that neither Ctrl-C nor a closed terminal reaches it."""
    handle, name = tempfile.mkstemp(prefix="kore-train-", suffix=".log")
    with os.fdopen(handle, "wb") as output:
        process = subprocess.Popen(
            list(argv), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    return Child(process, Path(name))


def need_terminal() -> None:
    """Refuse to run without a terminal.

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
        The child's exit code if it has ended, 0 if it still runs.

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
    # training comes first: this process, and not the running child, gets the lower priority
    with contextlib.suppress(OSError):
        os.nice(NICE)
    probe = Monitor(child.process.pid)

    def source(run: Path) -> RunSource:
        own = run.resolve() == folder.resolve()
        return RunSource(run, probe=probe, complaint=child.complaint if own else lambda: None)

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
    """Report the state of training on leaving; keep its output unless it succeeded."""
    from kore_cli.output import Output

    output = Output()
    code = child.process.poll()
    if code is None:
        seen = f"kore dashboard {shlex.quote(str(folder))}"
        output.note(f"training continues (process {child.process.pid}); watch it with: {seen}")
        output.note(f"stop it after its step with: kill -INT {child.process.pid}")
        output.note(f"its output goes to {child.output}")
        return 0
    if complaint := child.complaint():
        output.note(complaint)
    if code in (0, Interrupted.exit_code):
        child.output.unlink(missing_ok=True)
    else:
        output.note(f"its full output: {child.output}")
    return code if code >= 0 else 128 - code
