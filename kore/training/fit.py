"""Samples longer than train.max_length: listed in an error, left out, or cut at their end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kore.data.records import IMAGE_MARK, Message, Sample
from kore.errors import DataError
from kore.io.jsonl import write_jsonl
from kore.training.dataset import Located

if TYPE_CHECKING:
    from kore.models.token_budget import TokenBudget

OnLong = Literal["error", "drop", "truncate"]
LIST = "long.jsonl"  # in the run folder: samples that were cut or left out
NAMED = 20  # samples that an error lists


@dataclass(frozen=True)
class Long:
    """A sample that is too long, and what was done with it."""

    where: str
    id: str
    tokens: int
    done: Literal["left out", "cut"]

    def __str__(self) -> str:
        return f"{self.where}: sample {self.id}, {self.tokens} tokens: {self.done}"


@dataclass(frozen=True)
class Fitted:
    """Samples that fit.

    Attributes:
        long: those that were too long, in the order of the file.
    """

    samples: list[Located]
    long: list[Long] = field(default_factory=list)


def summary(long: Sequence[Long], limit: int) -> str:
    """How many were cut and left out, with the first of them."""
    counts = {done: sum(one.done == done for one in long) for done in ("cut", "left out")}
    text = ", ".join(f"{count} {done}" for done, count in counts.items() if count)
    return f"{len(long)} samples longer than {limit} tokens ({text}); the first: {long[0]}"


def fit(samples: Sequence[Located], budget: TokenBudget, on_long: OnLong) -> Fitted:
    """Measure every sample, and treat those that are too long.

    Raises:
        DataError: lists all that are too long; or none is left.
    """
    kept: list[Located] = []
    long: list[Long] = []
    for one in samples:
        tokens = budget.tokens(one.sample)
        if tokens <= budget.limit:
            kept.append(one)
            continue
        shorter = truncated(one.sample, budget) if on_long == "truncate" else None
        if shorter is not None:
            kept.append(Located(one.where, shorter))
        long.append(Long(one.where, one.sample.id, tokens, "cut" if shorter else "left out"))
    if long and on_long == "error":
        raise _too_long(long, budget)
    if long and not kept:
        raise DataError(
            f"no sample has {budget.limit} tokens or fewer",
            where=long[0].where,
            hint=budget.remedy(min(one.tokens for one in long)),
        )
    return Fitted(kept, long)


def fit_all(
    samples: Sequence[Located], old: Sequence[Located], budget: TokenBudget | None, on_long: OnLong
) -> tuple[Fitted, Fitted]:
    """Samples and the old ones that the method trains with, each short enough.

    Args:
        budget: None where the model is not here, so that nothing can be measured.

    Raises:
        DataError: lists all that are too long, old and new.
    """
    if budget is None:
        return Fitted(list(samples)), Fitted(list(old))
    if on_long == "error":
        fit([*samples, *old], budget, on_long)
        return Fitted(list(samples)), Fitted(list(old))
    return fit(samples, budget, on_long), fit(old, budget, on_long)


def write_long(folder: Path, long: Sequence[Long]) -> dict[str, int | str]:
    """List the samples in the run folder; returns how many were cut and left out."""
    write_jsonl(folder / LIST, [asdict(one) for one in long])
    cut = sum(one.done == "cut" for one in long)
    return {"cut": cut, "left_out": len(long) - cut, "list": LIST}


def truncated(sample: Sample, budget: TokenBudget) -> Sample | None:
    """The sample without its last turns, and the longest beginning of its last answer that fits.

    Pictures stay whole. None where not a single word of an answer fits.
    """
    turns = list(sample.conversations)
    while turns:
        *before, last = turns
        if last.from_ == "gpt" and _complete(sample, before):
            shorter = _shortened(sample, before, last, budget)
            if shorter is not None:
                return shorter
        turns = before
    return None


def _complete(sample: Sample, before: Sequence[Message]) -> bool:
    """Whether all pictures come before the answer."""
    return sum(turn.value.count(IMAGE_MARK) for turn in before) == len(sample.images)


def _shortened(sample: Sample, before: list[Message], last: Message, budget: TokenBudget) -> Sample | None:
    """The longest beginning of the answer that fits, by bisection over its words; None where none does."""
    pieces = last.value.split(" ") if " " in last.value.strip() else list(last.value)
    gap = " " if " " in last.value.strip() else ""

    def cut(count: int) -> Sample:
        end = last.model_copy(update={"value": gap.join(pieces[:count])})
        return sample.model_copy(update={"conversations": [*before, end]})

    low, high = 0, len(pieces)
    while low < high:
        middle = (low + high + 1) // 2
        if budget.fits(cut(middle)):
            low = middle
        else:
            high = middle - 1
    made = cut(low)
    return made if low and made.conversations[-1].value.strip() else None


def _too_long(long: Sequence[Long], budget: TokenBudget) -> DataError:
    lines = [f"\n  {one.where}: sample {one.id}, {one.tokens} tokens" for one in long[:NAMED]]
    more = f"\n  and {len(long) - NAMED} more" if len(long) > NAMED else ""
    count = f"{len(long)} samples are" if len(long) > 1 else "a sample is"
    hint = f"{budget.remedy(max(one.tokens for one in long))}, or --set train.on_long=drop (or truncate)"
    return DataError(f"{count} longer than train.max_length {budget.limit}:{''.join(lines)}{more}", hint=hint)
