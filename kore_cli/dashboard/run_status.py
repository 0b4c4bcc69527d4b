"""A run's condition in words that a person can act on, with the next command to run."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kore.artifacts.run import RunState
from kore_cli.dashboard.reducer import PROBING, SAVING
from kore_cli.dashboard.store import DashboardState, Phase
from kore_cli.widgets.formatting import duration

Name = Literal["waiting", "starting", "running", "stalled", "dead", "finished", "failed", "interrupted"]
SILENCE = 60.0
LONG = 1800.0  # for loading a model, many questions or a checkpoint

SIGNS: dict[Name, str] = {
    "waiting": "◌",
    "starting": "◔",
    "running": "●",
    "stalled": "▲",
    "dead": "✖",
    "finished": "✔",
    "failed": "✖",
    "interrupted": "■",
}


@dataclass(frozen=True)
class Liveness:
    """A run's condition.

    Attributes:
        words: the condition in one line. command: what to run next.
        age: seconds since the last event, readings of the machine among them.
    """

    name: Name
    words: str
    command: str | None = None
    age: float | None = None

    @property
    def sign(self) -> str:
        """One character for the condition."""
        return SIGNS[self.name]

    @property
    def over(self) -> bool:
        """Whether nothing more happens until a person acts."""
        return self.name in ("dead", "finished", "failed", "interrupted")


def judge(
    folder: Path | None, run: RunState | None, state: DashboardState, *, alive: bool | None, now: float
) -> Liveness:
    """Judge a run's condition.

    A live process has stalled when its work logs nothing for long: a background thread logs the machine
    even while the training loop hangs.

    Args:
        folder: the run's folder; None before there is a run to watch.
        run: the content of run.json, None where there is none.
        alive: whether the run's process is alive; None if that cannot be determined from this host.
        now: Unix time.
    """
    if run is None:
        if folder is None:
            return Liveness("waiting", "waiting for a first run", "kore demo")
        return Liveness(
            "waiting",
            f"waiting for a run in {folder}",
            f"kore train --data SAMPLES -o {shlex.quote(str(folder))}",
        )
    place = shlex.quote(str(folder)) if folder else "RUN"
    last = max(filter(None, (state.last_t, run.started)), default=now)
    age = max(0.0, now - last)
    again, follow = run.again, f"tail -f {place}/log.txt"
    if run.status == "finished":
        if alive and state.phase.name == "eval":
            return Liveness("running", _describe(state.phase), follow, age)
        took = f" in {duration(run.ended - run.started)}" if run.ended else ""
        return Liveness("finished", f"finished{took}", f"kore chat {place} --compare", age)
    if run.status == "failed":
        return Liveness("failed", f"failed: {run.message or 'see the log'}", again, age)
    if run.status == "interrupted":
        where = f" at step {state.step:,}" if state.step else ""
        return Liveness("interrupted", f"interrupted{where}; resumes from its last checkpoint", again, age)
    if alive is False:
        return Liveness(
            "dead", f"stopped {duration(age)} ago without an error (killed, or a reboot)", again, age
        )
    start = run.started - 0.001  # event times are rounded
    phase = state.phase if state.phase.t >= start else Phase("load")
    stepped = bool(state.recent) and state.recent[-1] >= start
    idle = max(0.0, now - max(state.progress_t or 0.0, run.started))
    steady = stepped and state.step_seconds is not None and phase.name not in ("load", PROBING, SAVING)
    limit = max(SILENCE, 5 * (state.step_seconds or 0.0))
    if idle > (limit if steady or (alive is None and age > SILENCE) else LONG):
        where = (
            "; its process is alive"
            if alive
            else f" (on {run.host}: its process cannot be checked from here)"
        )
        words = f"no progress for {duration(idle)}{where}"
        return Liveness("stalled", words, f"tail -n 50 {place}/log.txt", age)
    if not stepped:
        return Liveness("starting", _describe(phase), follow, age)
    return Liveness("running", "running" if phase.name in ("", "train") else _describe(phase), follow, age)


def _describe(phase: Phase) -> str:
    name = {
        "load": "starting",
        "calibrate": "calibrating",
        "augment": "growing trees",
        "eval": "evaluating",
    }.get(phase.name, phase.name)
    parts = [name, phase.text]
    if phase.done is not None:
        total = f" of {phase.total:,.0f}" if phase.total else ""
        parts.append(f"{phase.done:,.0f}{total}")
    return " · ".join(p for p in parts if p)
