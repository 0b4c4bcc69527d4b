"""What the stages around a training tell its run folder, so that a dashboard sees them, too."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kore.artifacts.events import EventWriter
from kore.artifacts.manifest import NAME, discard
from kore.artifacts.run import Run, RunState, leave_pointer
from kore.errors import Interrupted, KoreError, MissingArtefact
from kore.progress import Progress, both, event_log

if TYPE_CHECKING:
    from kore.config.resolve import Profile


def state_of(run: Run) -> RunState | None:
    """What run.json says; None where there is none."""
    try:
        return run.state()
    except MissingArtefact:
        return None


@contextmanager
def begun(
    run: Run,
    profile: Profile,
    command: tuple[str, ...],
    inputs: Mapping[str, Path],
    progress: Progress,
    *,
    restart: bool = False,
) -> Iterator[Progress]:
    """Make a run known before its training begins, and write the stages in the block as its events.

    Args:
        restart: discard what is there of it first.

    Yields:
        What the stages are to tell of their progress.
    """
    from kore.training.heartbeat import pulse

    with run.locked():
        if restart and (run.folder / NAME).exists():
            discard(run.folder)
        run.write(
            RunState(
                status="starting",
                method=profile.train.method,
                command=list(command),
                profile=profile.model_dump(mode="json"),
                inputs={name: {"path": str(path.resolve())} for name, path in inputs.items()},
            )
        )
        leave_pointer(run)
        with EventWriter(run.folder) as events, pulse(events):
            yield both(progress, event_log(events))


@contextmanager
def accounted(run: Run, before: RunState | None) -> Iterator[None]:
    """Tell the run what ended the block before its training could; a refusal leaves it as it was `before`."""
    try:
        yield
    except BaseException as error:
        state = state_of(run)
        if state is not None and state.status == "starting" and state.fingerprint is None:
            if before is not None and isinstance(error, KoreError) and not isinstance(error, Interrupted):
                run.write(before)
            else:
                with EventWriter(run.folder) as events:
                    ended(run, events, error)
        raise


def ended(run: Run, events: EventWriter, error: BaseException) -> None:
    """Tell the run why it stopped: interrupted, or failed."""
    stopped = isinstance(error, KeyboardInterrupt) or getattr(error, "exit_code", 1) == 130
    text = str(error) if isinstance(error, KoreError) else f"{type(error).__name__}: {error}"
    status = "interrupted" if stopped else "failed"
    events.write("status", phase=status, text=text)
    run.update(status=status, ended=time.time(), message=text)
