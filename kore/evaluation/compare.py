"""Results side by side: differences with paired bootstrap intervals, and the samples that flipped.

The interval is over samples: both models answered the same ones, so each resample draws pairs. It is at least
two samples wide, and says nothing about other seeds of training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.errors import DataError, MissingArtefact, UsageError
from kore.evaluation.flips import Flip, flips
from kore.evaluation.runner import BASE
from kore.evaluation.types import Verdict
from kore.io.files import read_json
from kore.io.jsonl import read_log

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 10_000
_LOSS_ROUNDING = 5e-4  # nats
_NOT_PROTOCOL = frozenset({"file", "warnings", "rows"})  # paths may differ; `data` is the content


@dataclass(frozen=True)
class Side:
    """One model's results: a folder of kore eval and a label in it."""

    folder: Path
    label: str
    scores: Mapping[str, Any]

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.folder.name}:{self.label}"

    def verdicts(self, suite: str) -> list[Verdict]:
        """Its per-sample verdicts of a suite."""
        return [Verdict(**line) for line in read_log(self.folder / "samples" / self.label / f"{suite}.jsonl")]


@dataclass(frozen=True)
class Difference:
    """Second minus first, with its 95 % interval.

    Attributes:
        suite: its name, or K.A / K.R for the mean over suites.
        low, high: of the difference.
        forgotten, learned: samples that flipped, summed over the suites of a mean.
        unit: percent, or nats for a loss.
    """

    suite: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    samples: int
    forgotten: int
    learned: int
    unit: str = "percent"

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0

    def to_json(self) -> dict[str, Any]:
        """A plain object."""
        return {**self.__dict__, "clear": self.clear}


@dataclass(frozen=True)
class _Pairs:
    """Both models' scores of one suite's samples, in the unit of the table, and the samples' weights."""

    first: np.ndarray[Any, Any]
    second: np.ndarray[Any, Any]
    weights: np.ndarray[Any, Any]
    flipped: Sequence[Flip]
    unit: str

    @property
    def least_width(self) -> float:
        """Half the least width of an interval: what one sample more or less would change."""
        if self.unit == "percent":
            return 100.0 / len(self.first)
        return max(float(abs(self.second - self.first).max()) / len(self.first), _LOSS_ROUNDING)


def open_side(text: str) -> Side:
    """``FOLDER`` or ``FOLDER:LABEL``; without a label the tuned model, or the base if it is alone.

    Raises:
        MissingArtefact: no results; UsageError: several tuned models and no label.
    """
    folder, label = Path(text), ""
    if not folder.is_dir() and ":" in text:
        name, _, label = text.rpartition(":")
        folder = Path(name)
    if (folder / "eval" / "results" / "scores").is_dir():
        folder = folder / "eval" / "results"
    labels = sorted(p.stem for p in (folder / "scores").glob("*.json"))
    if not labels:
        raise MissingArtefact(f"no results in {folder}", hint=f"write them with: kore eval MODEL -o {folder}")
    if not label:
        tuned = [name for name in labels if name != BASE] or labels
        if len(tuned) > 1:
            raise UsageError(
                f"{folder} has results of {', '.join(tuned)}", hint=f"name one: {folder}:{tuned[0]}"
            )
        label = tuned[0]
    if label not in labels:
        raise MissingArtefact(f"{folder} has no {label}", hint=f"it has {', '.join(labels)}")
    return Side(folder, label, read_json(folder / "scores" / f"{label}.json"))


def common_suites(first: Side, second: Side) -> list[str]:
    """Suites that both were scored on.

    Raises:
        DataError: none, or one of them under different protocols, data or judges.
    """
    names = [n for n in first.scores["suites"] if n in second.scores["suites"]]
    if not names:
        raise DataError(f"{first.name} and {second.name} have no suite in common")
    for name in names:
        a, b = _protocol(first, name), _protocol(second, name)
        unlike = sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))
        if unlike:
            settings = "; ".join(f"{key}: {a.get(key)} and {b.get(key)}" for key in unlike)
            raise DataError(
                f"{name}: {first.name} and {second.name} are not comparable: {settings}",
                hint="evaluate both in the same way",
            )
    return names


def _protocol(side: Side, suite: str) -> dict[str, Any]:
    facts = {k: v for k, v in side.scores["suites"][suite]["facts"].items() if k not in _NOT_PROTOCOL}
    generation = dict(side.scores.get("generation", {}))
    generation.pop("dtype", None)
    if "max_new_tokens" in facts:
        generation.pop("max_new_tokens", None)
    return {**generation, **facts}


def compare(first: Side, second: Side, *, resamples: int = RESAMPLES, seed: int = 0) -> list[Difference]:
    """Differences per suite, then K.A and K.R over them.

    Raises:
        DataError: see `common_suites`; also where the samples of a suite are not the same.
    """
    rows: list[Difference] = []
    adaptation: list[_Pairs] = []
    retention: list[_Pairs] = []
    label_free: list[_Pairs] = []
    for name in common_suites(first, second):
        pairs = _pairs(first, second, name)
        if pairs is None:
            continue
        rows.append(_difference(name, [pairs], resamples, seed))
        facts = first.scores["suites"][name]
        if pairs.unit != "percent" or facts["near"]:
            continue
        if facts["role"] == "adaptation":
            adaptation.append(pairs)
        else:
            (label_free if facts["label_free"] else retention).append(pairs)
    # as in the table of scores: agreement with the base counts only where nothing else does
    for name, several in (("K.A", adaptation), ("K.R", retention or label_free)):
        if several:
            rows.append(_difference(name, several, resamples, seed))
    return rows


def _pairs(first: Side, second: Side, suite: str) -> _Pairs | None:
    """None where one of the two was not scored."""
    import numpy as np  # the report's helpers stay free of numpy

    results = [side.scores["suites"][suite] for side in (first, second)]
    if any("headline" in result and result["headline"] is None for result in results):
        return None
    unit = results[0].get("unit", "percent")
    a, b = first.verdicts(suite), second.verdicts(suite)
    other = {v.id: v for v in b}
    if {v.id for v in a} != other.keys():
        raise DataError(
            f"{suite}: {first.name} and {second.name} answered different samples",
            hint="evaluate both without --limit",
        )
    rows = [(_score(v, unit), _score(other[v.id], unit), v.parts.get("tokens", 1)) for v in a]
    scored = [row for row in rows if None not in row]
    if not scored:
        return None
    values = np.array(scored, dtype=float)
    return _Pairs(values[:, 0], values[:, 1], values[:, 2], flips(a, b), unit)


def _score(verdict: Verdict, unit: str) -> float | None:
    """What a sample adds to its suite's figure: for adaptation the mean of CEM and F1."""
    if unit != "percent":
        return verdict.parts.get("loss")
    if verdict.score is None:
        return None
    if "cem" in verdict.parts and "f1_set" in verdict.parts:
        return 50.0 * float(verdict.parts["cem"] + verdict.parts["f1"])
    return 100.0 * verdict.score


def _difference(name: str, suites: Sequence[_Pairs], resamples: int, seed: int) -> Difference:
    """Mean over suites of the mean difference; each suite is resampled by itself, pairs kept together."""
    import numpy as np  # the report's helpers stay free of numpy

    rng = np.random.default_rng(seed)
    drawn = np.zeros(resamples)
    for pairs in suites:
        gap = (pairs.second - pairs.first) * pairs.weights
        for start in range(0, resamples, 500):  # bounds memory: 500 x samples indices at a time
            count = min(500, resamples - start)
            chosen = rng.integers(0, len(gap), size=(count, len(gap)))
            drawn[start : start + count] += (
                gap[chosen].sum(axis=1) / pairs.weights[chosen].sum(axis=1) / len(suites)
            )
    low, high = np.percentile(drawn, [2.5, 97.5])
    first = float(np.mean([np.average(pairs.first, weights=pairs.weights) for pairs in suites]))
    second = float(np.mean([np.average(pairs.second, weights=pairs.weights) for pairs in suites]))
    least = sum(pairs.least_width for pairs in suites) / len(suites)
    flipped = [flip for pairs in suites for flip in pairs.flipped]
    return Difference(
        name,
        first,
        second,
        second - first,
        min(float(low), second - first - least),
        max(float(high), second - first + least),
        sum(len(pairs.first) for pairs in suites),
        sum(not flip.gained for flip in flipped),
        sum(flip.gained for flip in flipped),
        suites[0].unit,
    )


def all_flips(first: Side, second: Side) -> dict[str, list[Flip]]:
    """Flipped samples by suite."""
    return {n: flips(first.verdicts(n), second.verdicts(n)) for n in common_suites(first, second)}
