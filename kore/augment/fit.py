"""Split what is longer than the model can hold: dialogues between turns, long answers at sentence ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from kore.augment.text import contains
from kore.data.records import IMAGE_MARK, Branch, KnowledgeItem, KnowledgeTree, Message, Sample
from kore.data.text import is_unspaced, sentences
from kore.errors import DataError

Pair = tuple[str, str]  # a question with its answer
_PART = "(99/99)"  # stands for a part's number while its length is measured


class Budget(Protocol):
    """What the fitter needs of `kore.models.token_budget.TokenBudget`."""

    @property
    def limit(self) -> int: ...

    def tokens(self, sample: Sample) -> int: ...

    def remedy(self, needed: int) -> str: ...


@dataclass(frozen=True)
class LeftOut:
    """A turn that the model cannot hold.

    Attributes:
        where: ``file:line`` of the item, if known.
        kind: dialogue, recognition, caption, vqa, hop or text.
        tokens: of a sample that holds this turn alone.
    """

    item: str
    where: str | None
    kind: str
    question: str
    tokens: int

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        question = self.question if len(self.question) <= 60 else f"{self.question[:57]}..."
        return f'{place}item {self.item}: left out, {self.tokens} tokens: {self.kind} "{question}"'


@dataclass
class FitReport:
    """What was split and what was left out.

    Attributes:
        split: item -> samples that its longest dialogue or text was divided into.
        not_taught: items of which no sample remains.
        estimated: whether some turns were not known yet.
    """

    max_length: int
    split: dict[str, int] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    not_taught: list[str] = field(default_factory=list)
    estimated: bool = False

    def to_json(self) -> dict[str, Any]:
        """Stable keys."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FitReport:
        """Read what `to_json` wrote."""
        return cls(**{**value, "left_out": [LeftOut(**row) for row in value["left_out"]]})

    def summary(self) -> str:
        """In a few words; empty where everything fits as it is."""
        parts = []
        if self.split:
            parts.append(f"{len(self.split)} items split into several samples")
        if self.left_out:
            parts.append(f"{len(self.left_out)} turns left out")
        if self.not_taught:
            parts.append(f"{len(self.not_taught)} items not taught")
        if not parts:
            return ""
        about = "estimated: " * self.estimated
        return f"{about}{', '.join(parts)} (at most {self.max_length} tokens per sample)"


@dataclass
class Fitter:
    """Makes samples that fit.

    Args:
        places: item id -> ``file:line``.
        root: folder of relative picture paths.
    """

    budget: Budget
    places: Mapping[str, str] = field(default_factory=dict)
    root: Path = field(default_factory=Path)

    def __post_init__(self) -> None:
        self.report = FitReport(self.budget.limit)
        self._most = 0
        self._dropped: list[Branch] = []
        self._known: set[tuple[str, str, str]] = set()

    def dialogue(
        self, item: KnowledgeItem, image: str | None, pairs: Sequence[Pair], opening: Pair | None
    ) -> list[list[Pair]]:
        """The turns of a dialogue, whole, in as many samples as they need; the title is in each.

        Args:
            opening: the turn that says what the picture shows; it is repeated at the start of each sample.
        """
        if self._tokens(image, pairs) <= self.budget.limit:
            return [list(pairs)]
        chunks: list[list[Pair]] = []
        current: list[Pair] = []
        for pair in pairs:
            if current and self._fits(image, [*current, pair]):
                current.append(pair)
            elif start := self._start(item, image, pair, opening):
                chunks += [current] if current else []
                current = start
            else:
                self._leave_out(item, "dialogue", pair, self._tokens(image, [pair]))
        chunks += [current] if current else []
        self._note_split(item, len(chunks))
        return chunks

    def answer(self, item: KnowledgeItem, kind: str, image: str | None, pair: Pair) -> list[Pair]:
        """A single turn; a long answer is split at its sentence ends, the title in each part."""
        if self._fits(image, [pair]):
            return [pair]
        said = sentences(pair[1])
        parts: list[str] = []
        gap = "" if is_unspaced(pair[1]) else " "
        for sentence in said if len(said) > 1 else []:
            longer = f"{parts[-1]}{gap}{sentence}" if parts else ""
            if longer and self._fits(image, [_part(item, pair[0], longer, _PART)]):
                parts[-1] = longer
            elif self._fits(image, [single := _part(item, pair[0], sentence, _PART)]):
                parts.append(sentence)
            else:
                self._leave_out(item, kind, (sentence, ""), self._tokens(image, [single]))
        if not parts and len(said) <= 1:
            self._leave_out(item, kind, pair, self._tokens(image, [pair]))
        self._note_split(item, len(parts))
        total = len(parts)
        return [_part(item, pair[0], part, f"({n}/{total})" * (total > 1)) for n, part in enumerate(parts, 1)]

    def drop(self, branch: Branch) -> None:
        """Note a branch of which no sample remains."""
        self._dropped.append(branch)

    def taught(self, tree: KnowledgeTree, samples: Sequence[Sample]) -> KnowledgeTree | None:
        """The tree without the branches that were left out; None where no sample remains."""
        if not samples:
            self.report.not_taught.append(tree.item.id)
            return None
        dropped, self._dropped = self._dropped, []
        return tree.model_copy(update={"branches": [b for b in tree.branches if b not in dropped]})

    def nothing_fits(self) -> DataError:
        """The error of items of which none can be taught."""
        named = [str(one) for one in self.report.left_out[:3]]
        return DataError(
            f"no item fits the model: every turn has more than {self.budget.limit} tokens; "
            + "; ".join(named),
            hint=f"{self.budget.remedy(self._most)}; then the same command with --restart",
        )

    def _start(
        self, item: KnowledgeItem, image: str | None, pair: Pair, opening: Pair | None
    ) -> list[Pair] | None:
        """The first turns of a sample that goes on with `pair`; None where that does not fit."""
        options = [[pair]] if pair == opening else [[_titled(item, pair)]]
        if opening is not None and pair != opening:
            options.insert(0, [opening, pair])
        return next((turns for turns in options if self._fits(image, turns)), None)

    def _fits(self, image: str | None, pairs: Sequence[Pair]) -> bool:
        return self._tokens(image, pairs) <= self.budget.limit

    def _tokens(self, image: str | None, pairs: Sequence[Pair]) -> int:
        place = None if image is None else image if "://" in image else str(self.root / image)
        return self.budget.tokens(to_sample("fit", place, pairs))

    def _note_split(self, item: KnowledgeItem, parts: int) -> None:
        if parts > 1:
            self.report.split[item.id] = max(parts, self.report.split.get(item.id, 0))

    def _leave_out(self, item: KnowledgeItem, kind: str, pair: Pair, tokens: int) -> None:
        self._most = max(self._most, tokens)
        key = (item.id, kind, pair[1] or pair[0])
        if key not in self._known:  # else another phrasing of the same turn
            self._known.add(key)
            question = pair[0].replace(IMAGE_MARK, "").strip().split("\n")[0]
            self.report.left_out.append(LeftOut(item.id, self.places.get(item.id), kind, question, tokens))


def to_sample(name: str, image: str | None, pairs: Sequence[Pair]) -> Sample:
    """Turns as a sample, the picture in the first."""
    turns: list[Message] = []
    for number, (question, answer) in enumerate(pairs):
        mark = f"{IMAGE_MARK}\n" if image and not number else ""
        turns += [
            Message(from_="human", value=mark + question.replace(IMAGE_MARK, "image")),
            Message(from_="gpt", value=answer.replace(IMAGE_MARK, "image")),
        ]
    return Sample(id=name, image=image, conversations=turns)


def _titled(item: KnowledgeItem, pair: Pair) -> Pair:
    """The turn with the item's title in its question, unless it names it anyway."""
    question, answer = pair
    known = contains(question, item.title) or contains(answer, item.title)
    return pair if known else (f"{item.title}: {question}", answer)


def _part(item: KnowledgeItem, question: str, answer: str, number: str) -> Pair:
    """A part of a long answer, its question numbered."""
    first, line, rest = question.partition("\n")
    return _titled(item, (f"{first} {number}".rstrip() + line + rest, answer))
