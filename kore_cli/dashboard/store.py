"""What the dashboard shows, as one frozen value. No Textual, no torch, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kore.telemetry import Telemetry
from kore_cli.widgets.curve import Curve

Event = Mapping[str, Any]
# training tells the held-out loss with each probe, other writers with a step
METRICS = ("loss", "held_out_loss", "lr", "grad_norm", "tokens_per_s", "samples_per_s")
LARGEST = 1e100  # the sums and differences of such numbers are numbers too
MARKS, PROBE_HISTORY, WARNINGS, READINGS, STORY = 400, 400, 200, 60, 200

Verdict = Literal["adapted", "not yet", "kept", "forgotten", "gained", "unknown"]


@dataclass(frozen=True)
class Mark:
    """Something that happened at a step: checkpoint, warning, or a resume."""

    step: float
    kind: Literal["checkpoint", "warning", "resumed"]
    text: str
    t: float = 0.0


@dataclass(frozen=True)
class Tuned:
    """What the injected model said at one checkpoint."""

    step: int
    answer: str
    right: bool | None


@dataclass(frozen=True)
class ProbeView:
    """A fixed question, the base's answer and the injected model's answers so far."""

    id: str
    kind: str
    question: str
    image: str | None
    known: str | None
    base: str
    base_right: bool | None
    history: tuple[Tuned, ...] = ()

    def at(self, step: int | None = None) -> Tuned | None:
        """The newest answer not later than `step`."""
        past = [h for h in self.history if step is None or h.step <= step]
        return past[-1] if past else None

    def verdict(self, step: int | None = None) -> Verdict:
        """Where this question stands: what was learnt, what was kept, what was lost."""
        tuned = self.at(step)
        if tuned is None or tuned.right is None:
            return "unknown"
        if self.kind == "new":
            return "adapted" if tuned.right else "not yet"
        if tuned.right:
            return "kept" if self.base_right else "gained"
        return "forgotten" if self.base_right else "unknown"


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
    """What a stage is doing, since when."""

    name: str = ""
    text: str = ""
    done: float | None = None
    total: float | None = None
    t: float = 0.0


@dataclass(frozen=True)
class DashboardState:
    """Everything that the events of a run say, bounded in size however many they were.

    Attributes:
        odd: events that were not as any version writes them.
        last_t: when the last event came. progress_t: the last one that the work itself wrote.
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
        """A metric's curve, empty if it was never told."""
        return self.curves.get(name, Curve())

    def counts(self, step: int | None = None) -> dict[Verdict, int]:
        """How many probes stand where."""
        found: dict[Verdict, int] = {}
        for probe in self.probes.values():
            verdict = probe.verdict(step)
            found[verdict] = found.get(verdict, 0) + 1
        return found

    def tally(self, step: int | None = None) -> tuple[int, int, int, int]:
        """Adapted, of how many new; kept, of how many old that the base knew."""
        found = self.counts(step)
        adapted, missing = found.get("adapted", 0), found.get("not yet", 0)
        kept, lost = found.get("kept", 0), found.get("forgotten", 0)
        return adapted, adapted + missing, kept, kept + lost


def number(value: object) -> float | None:
    """A number that can be drawn as float, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) <= LARGEST else None
