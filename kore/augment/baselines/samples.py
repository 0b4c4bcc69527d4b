"""Samples of a plain augmentation: the item's text behind a question about its picture, varied one way."""

from __future__ import annotations

from typing import Any

from kore.augment.baselines.image import change
from kore.augment.baselines.text import noisy
from kore.augment.branches import Grower
from kore.augment.images.store import ImageStore
from kore.augment.schemas import Rephrasings
from kore.augment.templates import Templates
from kore.augment.trunk import heuristic
from kore.config.schema import AugmentSection
from kore.data.records import KnowledgeItem
from kore.llm.request import Refused, Unusable


def needs_model(strategy: str) -> bool:
    """Whether a strategy cannot be had from rules."""
    return strategy == "text-aware"


async def plain_samples(
    item: KnowledgeItem,
    templates: Templates,
    settings: AugmentSection,
    seed: int,
    grower: Grower,
    store: ImageStore,
) -> list[dict[str, Any]]:
    """``settings.copies`` samples of one item: question, answer, image.

    none repeats the item as it is; text-aware has the teacher rephrase the text; text-agnostic swaps words;
    image-aware and image-agnostic change the picture.
    """
    question = heuristic(item, templates, seed).question if item.images else item.title
    text = item.text.strip() or item.title
    images: list[str | None] = [grower.views.trunk] * settings.copies
    answers = [text] * settings.copies
    match settings.strategy:
        case "text-aware":
            answers = await _rephrased(item, settings, seed, grower)
        case "text-agnostic":
            answers = [noisy(text, seed, f"{item.id}:{copy}") for copy in range(settings.copies)]
        case "image-aware" | "image-agnostic":
            if grower.views.trunk is None:
                grower.harvest.notes.append("no picture to change: the item is left out")
                return []
            gently = settings.strategy == "image-aware"
            original = store.path(grower.views.trunk)
            images = [
                store.add_bytes(change(original, seed, f"{item.id}:{copy}", gently=gently))
                for copy in range(settings.copies)
            ]
    return [
        {"question": question, "answer": answer} | ({"image": image} if image else {})
        for answer, image in zip(answers, images, strict=False)
    ]


async def _rephrased(item: KnowledgeItem, settings: AugmentSection, seed: int, grower: Grower) -> list[str]:
    call = grower.asker.call("rephrase", Rephrasings, item, seed, count=settings.copies)
    try:
        texts = (await grower.asker.ask(call, Rephrasings, grower.harvest.usage)).texts
    except (Refused, Unusable) as error:
        grower.harvest.notes.append(f"no rephrasing: {error}")
        return []
    return [t.strip() for t in texts if t.strip()][: settings.copies]
