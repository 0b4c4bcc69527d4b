"""Evaluation questions from the same trees, in EVOKE's form and in wordings that no sample has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kore.augment.branches import point_at
from kore.augment.teachers.offline import tier_of
from kore.augment.templates import Templates, draw, fill
from kore.augment.text import fold
from kore.data.records import KnowledgeItem, KnowledgeTree, Question

ALIKE = 0.9  # two wordings that share more of their words than this are the same wording


def questions(tree: KnowledgeTree, templates: Templates, seed: int) -> Iterator[Question]:
    """One question per thing that training teaches and a short answer can show: an entity's name, and each
    visual question in its held-out wording. Images: the held-out one if there is one."""
    item = tree.item
    seen_as = _held_out_picture(tree)
    if item.kind == "entity" and seen_as and templates.entity.heuristic.held_out:
        wording = draw(templates.entity.heuristic.held_out, seed, item.id, "name held out")
        yield _question(
            f"{item.id}-name", item, templates, fill(wording, type=item.type), item.title, seen_as
        )
    for number, branch in enumerate((b for b in tree.branches if b.task in ("vqa", "hop")), 1):
        pattern = branch.extra.get("held_out")
        if branch.key and branch.key.startswith("facts."):
            tier = tier_of(templates, branch.key)
            if tier.held_out:
                pattern = draw(tier.held_out, seed, item.id, branch.key, "held out")
                pattern = fill(pattern, k=branch.key.partition(".")[2].replace("_", " "))
        if not pattern:
            continue
        shown = bool(branch.extra.get("shown", True))
        pictures = tree.extra.get("images", {}).get("shown") or []
        image = seen_as if branch.image in pictures and shown else branch.image
        text = point_at(
            pattern,
            templates,
            branch.subject or item.title,
            branch.hypernym or item.type,
            shown,
            held_out=True,
        )
        yield _question(
            f"{item.id}-{branch.task}-{number}", item, templates, text, branch.answer, image, branch.key
        )


def _held_out_picture(tree: KnowledgeTree) -> str | None:
    images = tree.extra.get("images", {})
    own = images.get("own") or tree.item.images
    return images.get("held_out") or (own[0] if own else None)


def _question(
    name: str,
    item: KnowledgeItem,
    templates: Templates,
    text: str,
    answer: str,
    image: str | None,
    key: str | None = None,
) -> Question:
    extra = {"category": "default", "item": item.id} | ({"key": key} if key else {})
    return Question(
        question_id=name,
        image=image,
        text=f"{text}\n{templates.instructions.short[0]}",
        answer=answer,
        type=item.type,
        cnn_wiki_type="news" if item.kind == "news" else "wiki",
        extra=extra,
    )


class Overlap:
    """Refuses evaluation questions whose wording training has: the same text, or nearly the same words.

    Wordings are compared per item: that two items share a template is what a held-out template is for.
    """

    def __init__(self, instructions: Iterable[str]) -> None:
        self._instructions = sorted((fold(i) for i in instructions), key=len, reverse=True)
        self.refused = 0

    def fresh(self, asked: Iterable[Question], trained: Iterable[str]) -> Iterator[Question]:
        """The questions that no trained wording equals."""
        known = [self._core(text) for text in trained]
        texts, bags = {k[0] for k in known}, [k[1] for k in known]
        for question in asked:
            text, bag = self._core(question.text)
            if text in texts or any(_alike(bag, other) for other in bags):
                self.refused += 1
            else:
                yield question

    def _core(self, text: str) -> tuple[str, frozenset[str]]:
        folded = fold(text.replace("<image>", " "))
        for instruction in self._instructions:
            folded = folded.replace(instruction, " ")
        core = " ".join(folded.split()).strip(" ?.!？。؟")
        return core, frozenset(core.split()) if " " in core else frozenset(core)


def _alike(a: frozenset[str], b: frozenset[str]) -> bool:
    return bool(a) and bool(b) and len(a & b) / len(a | b) > ALIKE
