"""Results side by side: differences with paired bootstrap intervals, and the samples that flipped.

The interval is over samples: both models answered the same ones, so each resample draws samples and
keeps the pairs. It says nothing about other seeds of training.
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
_NOT_PROTOCOL = frozenset({"file", "warnings", "rows"})  # paths may differ; `data` says what is in them


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
    """Second minus first, in percent, with its 95 % interval.

    Attributes:
        suite: its name, or K.A / K.R for the mean over suites.
        low, high: of the difference.
        forgotten, learned: samples that flipped.
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

    @property
    def clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0

    def to_json(self) -> dict[str, Any]:
        """A plain object."""
        return {**self.__dict__, "clear": self.clear}


def open_side(text: str) -> Side:
    """``FOLDER`` or ``FOLDER:LABEL``; without a label the tuned model, or the base if it is alone.

    Raises:
        MissingArtefact: no results there; UsageError: several tuned models and no label.
    """
    folder, label = Path(text), ""
    if not folder.is_dir() and ":" in text:
        name, _, label = text.rpartition(":")
        folder = Path(name)
    if (folder / "eval" / "results" / "scores").is_dir():
        folder = folder / "eval" / "results"
    labels = sorted(p.stem for p in (folder / "scores").glob("*.json"))
    if not labels:
        raise MissingArtefact(f"no results in {folder}", hint=f"make them with: kore eval MODEL -o {folder}")
    if not label:
        tuned = [name for name in labels if name != BASE] or labels
        if len(tuned) > 1:
            raise UsageError(f"{folder} holds {', '.join(tuned)}", hint=f"name one: {folder}:{tuned[0]}")
        label = tuned[0]
    if label not in labels:
        raise MissingArtefact(f"{folder} has no {label}", hint=f"it holds {', '.join(labels)}")
    return Side(folder, label, read_json(folder / "scores" / f"{label}.json"))


def common_suites(first: Side, second: Side) -> list[str]:
    """Suites that both were scored on.

    Raises:
        DataError: none, or one of them under unlike protocols, data or judges.
    """
    names = [n for n in first.scores["suites"] if n in second.scores["suites"]]
    if not names:
        raise DataError(f"{first.name} and {second.name} have no suite in common")
    for name in names:
        a, b = _protocol(first, name), _protocol(second, name)
        unlike = sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))
        if unlike:
            told = "; ".join(f"{key}: {a.get(key)} and {b.get(key)}" for key in unlike)
            raise DataError(
                f"{name}: {first.name} and {second.name} are not comparable: {told}",
                hint="evaluate both in the same way",
            )
    return names


def _protocol(side: Side, suite: str) -> dict[str, Any]:
    facts = {k: v for k, v in side.scores["suites"][suite]["facts"].items() if k not in _NOT_PROTOCOL}
    made = dict(side.scores.get("generation", {}))
    made.pop("dtype", None)
    if "max_new_tokens" in facts:
        made.pop("max_new_tokens", None)
    return {**made, **facts}


def compare(first: Side, second: Side, *, resamples: int = RESAMPLES, seed: int = 0) -> list[Difference]:
    """Differences per suite, then K.A and K.R over them.

    Raises:
        DataError: see `common_suites`; also where samples of a suite are not the same.
    """
    rows: list[Difference] = []
    gathered: dict[str, list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]] = {"K.A": [], "K.R": []}
    for name in common_suites(first, second):
        told = first.scores["suites"][name]
        a, b = first.verdicts(name), second.verdicts(name)
        pairs = _pairs(a, b, name)
        if pairs is None:
            continue
        flipped = flips(a, b)
        rows.append(_difference(name, [pairs], resamples, seed, flipped))
        if told["role"] == "adaptation":
            gathered["K.A"].append(pairs)
        elif not told["near"] and not told["label_free"]:
            gathered["K.R"].append(pairs)
    for name, several in gathered.items():
        if several:
            rows.append(_difference(name, several, resamples, seed, []))
    return rows


def _pairs(
    a: Sequence[Verdict], b: Sequence[Verdict], suite: str
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
    import numpy as np

    other = {v.id: v for v in b}
    if {v.id for v in a} != other.keys():
        raise DataError(
            f"{suite}: the two were not asked the same samples", hint="evaluate both without --limit"
        )
    both = [(v, other[v.id]) for v in a if v.score is not None and other[v.id].score is not None]
    if not both:
        return None
    return np.array([_score(v) for v, _ in both]), np.array([_score(w) for _, w in both])


def _score(verdict: Verdict) -> float:
    """What a sample adds to its suite: the mean of CEM and F1 where it has them."""
    if "cem" in verdict.parts and "f1_set" in verdict.parts:
        return float(verdict.parts["cem"] + verdict.parts["f1"]) / 2
    return float(verdict.score or 0.0)


def _difference(
    name: str,
    suites: Sequence[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]],
    resamples: int,
    seed: int,
    flipped: Sequence[Flip],
) -> Difference:
    """Mean over suites of the mean difference; suites are resampled apart, pairs kept."""
    import numpy as np

    rng = np.random.default_rng(seed)
    drawn = np.zeros(resamples)
    for a, b in suites:
        gap = b - a
        for start in range(0, resamples, 500):  # bounds memory: 500 x samples indices at a time
            count = min(500, resamples - start)
            chosen = rng.integers(0, len(gap), size=(count, len(gap)))
            drawn[start : start + count] += gap[chosen].mean(axis=1) / len(suites)
    low, high = np.percentile(100 * drawn, [2.5, 97.5])
    first = 100 * float(np.mean([a.mean() for a, _ in suites]))
    second = 100 * float(np.mean([b.mean() for _, b in suites]))
    return Difference(
        name, first, second, second - first, float(low), float(high), sum(len(a) for a, _ in suites),
        sum(not f.gained for f in flipped), sum(f.gained for f in flipped),
    )  # fmt: skip


def all_flips(first: Side, second: Side) -> dict[str, list[Flip]]:
    """Flipped samples by suite."""
    return {n: flips(first.verdicts(n), second.verdicts(n)) for n in common_suites(first, second)}
