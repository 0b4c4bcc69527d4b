"""One trial: a method trained at one setting and scored. The demo, the frontier and the study run these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.artifacts.run import Run
from kore.config.resolve import Resolved, resolve
from kore.progress import Progress, silent
from kore.workflows import stages

if TYPE_CHECKING:
    from kore.evaluation.runner import Result
    from kore.evaluation.types import Suite


@dataclass(frozen=True)
class Trial:
    """A method at one setting.

    Attributes:
        label: its row's name.
        method: as in ``kore train --method``.
        data: samples.jsonl to train on.
        covariance: what the null space is taken from; None for methods without one.
        new_covariance: of the new samples, for the contrast basis.
        flags: settings beside the profile's, by dotted key.
    """

    label: str
    method: str
    data: Path
    covariance: Path | None = None
    old: Path | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)
    new_covariance: Path | None = None

    def resolved(self, profile: str) -> Resolved:
        """The profile with this trial's settings."""
        return resolve(profile, {**self.flags, "train.method": self.method})


def run_trial(
    trial: Trial,
    profile: str,
    out: Path,
    suites: Sequence[Suite],
    evals: Path,
    progress: Progress = silent,
    *,
    probes: Path | None = None,
    restart: bool = False,
    stage: str | None = None,
    command: Sequence[str] = (),
) -> tuple[Run, Result]:
    """Train into `out` and score into `evals`; finished parts are not done again.

    Args:
        command: the command line that goes on with what the trial belongs to.
    """
    resolved = trial.resolved(profile)
    run = stages.train(
        resolved,
        trial.data,
        out,
        progress,
        covariance=trial.covariance,
        new_covariance=trial.new_covariance,
        old=trial.old,
        probes=probes,
        restart=restart,
        stage=stage or f"train {trial.label}",
        command=command,
    )
    result = stages.evaluate(resolved, run, suites, evals, trial.label, progress)
    return run, result
