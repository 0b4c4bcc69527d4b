"""Which picture each part of a tree shows (paper, 4.2.1 step 2)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kore.augment.images.encoder import PictureEncoder
from kore.augment.images.finder import Finder
from kore.augment.images.provider import Found
from kore.augment.images.similar import Scored, most_similar
from kore.augment.text import contains, fold
from kore.data.records import KnowledgeItem
from kore.errors import DataError, ProviderError
from kore.llm.request import Lasting


@dataclass(frozen=True)
class Views:
    """The pictures of one item, as record paths.

    Attributes:
        own: the item's own pictures for training (all but the one held out).
        trunk, recognition, caption: what each shows; None when there is no picture at all.
        held_out: a picture that no sample shows, for evaluation; None if there are too few.
        kept, copies: search results that were kept or left out as copies, with their cosine to the original.
    """

    own: list[str] = field(default_factory=list)
    trunk: str | None = None
    recognition: str | None = None
    caption: str | None = None
    held_out: str | None = None
    kept: list[Scored] = field(default_factory=list)
    copies: list[Scored] = field(default_factory=list)
    fallback: bool = False

    @property
    def shown(self) -> list[str]:
        """All pictures of the item that samples may show: its own and the two kept ones."""
        return list(dict.fromkeys([*self.own, *(s.image for s in self.kept[:2])]))

    def nth(self, number: int) -> str | None:
        """The `number`-th of the item's pictures, going round."""
        return self.shown[number % len(self.shown)] if self.shown else None

    def record(self) -> dict[str, Any]:
        """For the tree: what was found, with scores."""
        value: dict[str, Any] = {"own": self.own, "shown": self.shown, "fallback": self.fallback}
        if self.held_out:
            value["held_out"] = self.held_out
        if self.kept:
            value["kept"] = [{"image": s.image, "score": s.score} for s in self.kept]
        if self.copies:
            value["copies"] = [{"image": s.image, "score": s.score} for s in self.copies]
        return value


@dataclass(frozen=True)
class SubjectView:
    """A visual question's picture, and whether it shows the subject (else the question must name it)."""

    image: str | None
    shows_subject: bool


@dataclass
class Gallery:
    """Chooses pictures for items.

    Args:
        near: cosine from which two pictures are copies.
        candidates: pictures to look at per item.
    """

    finder: Finder
    encoder: PictureEncoder | None
    candidates: int
    near: float

    async def views(self, item: KnowledgeItem) -> Views:
        """The item's pictures: its own, and the two found ones most like the first of them.

        A third found picture, or the last of three or more own ones, is held out for evaluation.

        Raises:
            DataError: one of the item's own pictures is missing or broken. Lasting: it cannot be fetched.
        """
        own = list(dict.fromkeys([await self._own(item, place) for place in item.images]))
        if not own:
            return Views()
        found = await self.finder.find(item.title, self.candidates)
        original = own[0], self.finder.store.path(own[0])
        kept, copies = (
            await asyncio.to_thread(most_similar, original, found, self.encoder, keep=3, near=self.near)
            if found and self.encoder is not None
            else ([], [])
        )
        held_out = kept[2].image if len(kept) > 2 else None
        if held_out is None and len(own) > 2:
            held_out = own.pop()
        others = [s.image for s in kept[:2]] + own[1:] + own[:1] * 2
        return Views(own, own[0], others[0], others[1], held_out, kept, copies, fallback=others[1] == own[0])

    async def subject(
        self, item: KnowledgeItem, views: Views, subject: str, hypernym: str, number: int = 0
    ) -> SubjectView:
        """A picture of a visual question's subject: the first one found, or one of the item's where that is
        it."""
        if fold(subject) == fold(item.title) or (item.kind == "entity" and contains(item.title, subject)):
            return SubjectView(views.nth(number), bool(views.shown))
        found = await self.finder.find(f"{subject} {hypernym}", 1)
        if found:
            return SubjectView(found[0][0], True)
        return SubjectView(views.trunk, False)

    async def _own(self, item: KnowledgeItem, place: str) -> str:
        if "://" not in place:
            return self.finder.store.add_file(Path(place), f"item {item.id}")
        try:
            return await self.finder.take(Found(place, source=item.source))
        except DataError as error:
            raise DataError(error.message, where=f"item {item.id}", hint=error.hint) from error
        except ProviderError as error:
            raise Lasting(error.message, where=f"item {item.id}", hint=error.hint) from error
