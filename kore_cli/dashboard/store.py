"""The dashboard's state as one frozen value. No Textual, no torch, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kore.telemetry import Telemetry
from kore_cli.widgets.curve import Curve

Event = Mapping[str, Any]
# training logs the held-out loss with each probe, other writers with a step
METRICS = ("loss", "held_out_loss", "lr", "grad_norm", "tokens_per_s", "samples_per_s")
LARGEST = 1e100  # sums and differences of such numbers are finite too
MARKS, PROBE_HISTORY, WARNINGS, READINGS, STORY = 400, 400, 200, 60, 200

Verdict = Literal["adapted", "known before", "not yet", "kept", "forgotten", "gained", "unknown"]


@dataclass(frozen=True)
class Mark:
    """Something that happened at a step: checkpoint, warning, or a resume."""

    step: float
    kind: Literal["checkpoint", "warning", "resumed"]
    text: str
    t: float = 0.0


@dataclass(frozen=True)
class Tuned:
    """The injected model's answer at one checkpoint."""

    step: int
    answer: str
    right: bool | None


@dataclass(frozen=True)
class ProbeView:
    """A probe question, the base's answer and the injected model's answers so far.

    Attributes:
        kind: "new" or "old" knowledge. expected: the right answer.
    """

    id: str
    kind: str
    question: str
    image: str | None
    expected: str | None
    base: str
    base_right: bool | None
    history: tuple[Tuned, ...] = ()

    def at(self, step: int | None = None) -> Tuned | None:
        """The newest answer not later than `step`."""
        past = [h for h in self.history if step is None or h.step <= step]
        return past[-1] if past else None

    def verdict(self, step: int | None = None) -> Verdict:
        """Where this question stands. The base already knew some new questions: those are not adapted."""
        tuned = self.at(step)
        if tuned is None or tuned.right is None:
            return "unknown"
        if self.base_right and not tuned.right:
            return "forgotten"
        if self.kind == "new":
            return "known before" if self.base_right else "adapted" if tuned.right else "not yet"
        if tuned.right:
            return "kept" if self.base_right else "gained"
        return "unknown"


@dataclass(frozen=True)
class EvalRow:
    """One score, or how far it is."""

    suite: str
    label: str
    dimension: str
    metric: str
    score: float | None
    n: int | None
    done: int | None
    total: int | None


@dataclass(frozen=True)
class Phase:
    """What a stage is doing, and since when."""

    name: str = ""
    text: str = ""
    done: float | None = None
    total: float | None = None
    t: float = 0.0


@dataclass(frozen=True)
class Tally:
    """How many probe questions stand where.

    Attributes:
        adapted, new: right answers among the questions that the base did not know.
        known: new questions that the base already knew, and the injected model still knows.
        kept, old: right answers among the old questions that the base knew, with new ones forgotten since.
    """

    adapted: int
    new: int
    known: int
    kept: int
    old: int

    @property
    def forgotten(self) -> int:
        """Questions that the base knew and the injected model does not."""
        return self.old - self.kept


@dataclass(frozen=True)
class DashboardState:
    """Everything that a run's events report, bounded in size whatever their number.

    Attributes:
        odd: events in a format that no version writes.
        last_t: time of the last event. progress_t: of the last one that the work itself wrote.
        best: the checkpoint with the best probe score, which is the mean of new and old probes.
    """

    events: int = 0
    odd: int = 0
    last_t: float | None = None
    progress_t: float | None = None
    step: int = 0
    steps: int | None = None
    epoch: float | None = None
    eta_s: float | None = None
    now: Mapping[str, float | None] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)
    marks: tuple[Mark, ...] = ()
    warnings: tuple[Mark, ...] = ()
    nonfinite: Mark | None = None
    checkpoint: Mark | None = None
    best: Mark | None = None
    probes: Mapping[str, ProbeView] = field(default_factory=dict)
    evals: Mapping[tuple[str, str, str], EvalRow] = field(default_factory=dict)
    phase: Phase = Phase()
    readings: tuple[tuple[float, Telemetry], ...] = ()
    story: tuple[tuple[float, str], ...] = ()
    step_seconds: float | None = None
    recent: tuple[float, ...] = ()
    held_out: tuple[float, ...] = ()

    def curve(self, name: str) -> Curve:
        """A metric's curve, empty if the run does not log it."""
        return self.curves.get(name, Curve())

    def counts(self, step: int | None = None) -> Counter[Verdict]:
        """The number of probes by verdict."""
        return Counter(probe.verdict(step) for probe in self.probes.values())

    def tally(self, step: int | None = None) -> Tally:
        """The number of probes by verdict, summed up."""
        counts = self.counts(step)
        adapted, kept = counts["adapted"], counts["kept"]
        return Tally(
            adapted=adapted,
            new=adapted + counts["not yet"],
            known=counts["known before"],
            kept=kept,
            old=kept + counts["forgotten"],
        )


def number(value: object) -> float | None:
    """A number that can be drawn, as a float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) <= LARGEST else None
