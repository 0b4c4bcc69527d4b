"""What the stages around a training tell its run folder, so that a dashboard sees them, too."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, get_args

from kore.errors import MissingArtefact
from kore.events import EventWriter, Kind
from kore.progress import Progress
from kore.run import Run, RunState, leave_pointer

if TYPE_CHECKING:
    from kore.profile import Profile

SECONDS = 1.0  # between two events of a stage


def unfinished(run: Run) -> bool:
    """Whether a run is still to be trained."""
    try:
        return run.state().status != "finished"
    except MissingArtefact:
        return True


@contextmanager
def begun(run: Run, profile: Profile, command: tuple[str, ...], progress: Progress) -> Iterator[Progress]:
    """Make a run known before its training begins, and write the stages in the block as its events.

    Yields:
        What the stages are to tell of their progress.
    """
    from kore.pipeline.training import ended

    with run.locked():
        run.write(
            RunState(
                status="starting",
                method=profile.train.method,
                command=list(command),
                profile=profile.model_dump(mode="json"),
            )
        )
        leave_pointer(run)
        with EventWriter(run.folder) as events:
            try:
                yield written(events, progress)
            except BaseException as error:
                ended(run, events, error)
                raise


def written(events: EventWriter, progress: Progress) -> Progress:
    """The same listener, with an event of the stage's kind now and then."""
    last: dict[str, float] = {}

    def tell(stage: str, done: int, total: int | None = None, note: str = "") -> None:
        progress(stage, done, total, note)
        kind, _, text = stage.partition(" ")
        now, over = time.monotonic(), total is not None and done >= total
        if kind in get_args(Kind) and (over or now - last.get(stage, -SECONDS) >= SECONDS):
            last[stage] = now
            events.write(kind, text=text or note, done=done, total=total)  # type: ignore[arg-type]

    return tell
