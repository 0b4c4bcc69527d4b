"""K.A, K.R, Avg and HARS: the figures that compare methods (paper 5.2; HARS from its second version).

K.R is the plain mean over the suites that both models were scored on, reported with their number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kore.evaluation.types import Scored

DIMENSIONS = ("COM", "OCR", "M-DIS", "INS", "M-IDU", "MAT", "HAL")


@dataclass(frozen=True)
class Scores:
    """The summary of one model, each figure 0 to 100 or None where nothing was scored.

    Attributes:
        k_a: mean of EVOKE CEM and F1 (mean over adaptation suites if there are several).
        k_r: plain mean over the retention suites that both this model and the base were scored on.
        k_r_near: the same over suites of the new knowledge's own kind, which `k_r` leaves out.
        k_r_dims: mean over the capability dimensions of their means, where benchmarks have one.
        avg: (k_a + k_r) / 2.
        hars: harmonic mean of the rescaled relative gains; None for the base itself.
        k_r_share: k_r as a share of the base's, 0 to 1 or above.
        suites, of: number of suites in `k_r`, and number of suites evaluated.
        loss_rise: rise of the per-token loss over the base's, in nats, mean over ``loss:`` suites.
        notes: decisions on edge cases, and suites that a judge covered only in part.
    """

    k_a: float | None
    k_r: float | None
    k_r_near: float | None
    k_r_dims: float | None
    avg: float | None
    hars: float | None
    k_r_share: float | None
    suites: int
    of: int
    loss_rise: float | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A plain object."""
        return {**self.__dict__, "notes": list(self.notes)}


def summarise(scored: Mapping[str, Scored], base: Mapping[str, Scored] | None = None) -> Scores:
    """Summarise one model's suites, against the untouched base's where given.

    Args:
        scored: suite name -> result.
        base: the untouched model's results; only suites that it was scored on count.
    """
    loss_rise = _mean(s.metrics.get("rise") for s in scored.values() if s.unit == "nats")
    partly = tuple(f"{n}: {words}" for n, s in scored.items() if (words := s.judge_coverage))
    scored = {n: s for n, s in scored.items() if s.unit == "percent"}
    against = scored if base is None else base
    both = [
        s
        for n, s in scored.items()
        if s.headline is not None and n in against and against[n].headline is not None
    ]
    evaluated = {n for n, s in scored.items() if s.role == "retention" and not s.near}
    far = [s for s in both if s.role == "retention" and not s.near]
    # agreement with the base is 100 for the base by definition: it replaces benchmarks, and is never
    # averaged with them
    far = [s for s in far if not s.label_free] or far
    evaluated -= {n for n, s in scored.items() if s.label_free and not all(f.label_free for f in far)}
    k_a, k_r = _mean(s.headline for s in both if s.role == "adaptation"), _mean(s.headline for s in far)
    near = _mean(s.headline for s in both if s.role == "retention" and s.near)
    hars, share = None, None
    notes: tuple[str, ...] = ()
    if base is not None:
        k_a0 = _mean(against[s.suite].headline for s in both if s.role == "adaptation")
        k_r0 = _mean(against[s.suite].headline for s in far)
        hars, notes = _hars_of(k_a, k_a0, k_r, k_r0)
        share = k_r / k_r0 if k_r is not None and k_r0 else None
    avg = (k_a + k_r) / 2 if k_a is not None and k_r is not None else None
    return Scores(
        k_a,
        k_r,
        near,
        _dimensions(far),
        avg,
        hars,
        share,
        len(far),
        len(evaluated),
        loss_rise,
        (*notes, *partly),
    )


def hars(k_a: float, k_a0: float, k_r: float, k_r0: float) -> tuple[float | None, str | None]:
    """Harmonised adaptation-retention score, and a note where the formula needed a decision.

    G_A and G_R are the gains in percent of the untouched model's figures; f_A = 100 G_A / (G_A + 100),
    f_R = G_R + 100; the score is their harmonic mean. Decisions where that is not defined:

    - nothing learned (K.A not above K.A0): 0;
    - K.A0 is 0 and K.A above it: f_A is taken at its limit for large gains, 100;
    - K.R0 is 0: None, since there was nothing to keep.
    """
    if k_r0 <= 0:
        return None, "HARS not defined: the base's K.R is 0"
    if k_a <= k_a0:
        return 0.0, "HARS is 0: K.A is not above the base's"
    note = "HARS: the base's K.A is 0, so f_A is at its limit of 100" if k_a0 == 0 else None
    gain = 100 * (k_a - k_a0) / k_a0 if k_a0 else None
    f_a = 100.0 if gain is None else 100 * gain / (gain + 100)
    f_r = 100 * k_r / k_r0
    return 2 * f_a * f_r / (f_a + f_r), note


def _hars_of(
    k_a: float | None, k_a0: float | None, k_r: float | None, k_r0: float | None
) -> tuple[float | None, tuple[str, ...]]:
    if k_a is None or k_a0 is None or k_r is None or k_r0 is None:
        return None, ()
    value, note = hars(k_a, k_a0, k_r, k_r0)
    return value, (note,) if note else ()


def _mean(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None


def _dimensions(scored: Iterable[Scored]) -> float | None:
    grouped: dict[str, list[float | None]] = defaultdict(list)
    for suite in scored:
        if suite.dimension:
            grouped[suite.dimension].append(suite.headline)
    return _mean(_mean(values) for values in grouped.values())


def table(
    base: Mapping[str, Scored], tuned: Mapping[str, Mapping[str, Scored]], base_label: str = "base"
) -> list[dict[str, Any]]:
    """One row per method, the untouched base first: method, the scores, and each suite's headline.

    Args:
        base: suite name -> the untouched model's result.
        tuned: method's name -> its results.
    """
    return [row(base_label, base, None), *(row(label, scored, base) for label, scored in tuned.items())]


def row(label: str, scored: Mapping[str, Scored], base: Mapping[str, Scored] | None) -> dict[str, Any]:
    """One method's row of the table; `base` is None for the base itself, or where it was not scored."""
    adaptation = [s for s in scored.values() if s.role == "adaptation"]
    return {
        "method": label,
        **summarise(scored, base).to_json(),
        "cem": _mean(s.metrics.get("cem") for s in adaptation),
        "f1": _mean(s.metrics.get("f1") for s in adaptation),
        "per_suite": {name: s.headline for name, s in scored.items()},
    }
