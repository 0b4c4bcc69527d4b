"""What growing would cost, without asking anybody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kore.augment.call import Call, Teacher, make_call
from kore.augment.choose import choose_encoder, choose_provider, choose_teacher
from kore.augment.inputs import check_ids, shard_indices
from kore.augment.limits import EXPECTED_OUT, estimate_tokens, price
from kore.augment.links import link_items
from kore.augment.parse import parse
from kore.augment.plain.samples import needs_model
from kore.augment.replies import ReplyStore, cache_home
from kore.augment.schemas import Answer, Answers, Hops, Quadruplets, Questions, Rephrasings, Summary
from kore.augment.templates import load_templates
from kore.errors import DataError, UsageError
from kore.records import KnowledgeItem
from kore.settings import AugmentSection

TYPICAL_QUESTIONS = (
    8  # dialogue turns that a teacher makes of one text: KORE-74K has 75,710 rounds on 9,422 items
)


@dataclass
class Estimate:
    """Calls, tokens and money; cached calls cost nothing and are not among the tokens."""

    items: int
    paid: bool
    price_in: float | None
    price_out: float | None
    calls: int = 0
    cached: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    searches: int = 0

    @property
    def money(self) -> float | None:
        """What is still to be paid; None without prices."""
        return price(self.tokens_in, self.tokens_out, self.price_in, self.price_out) if self.paid else 0.0

    def to_json(self) -> dict[str, Any]:
        """Stable keys."""
        return {k: v for k, v in self.__dict__.items() if not k.startswith("price_")} | {"money": self.money}


def estimate(
    items: Sequence[KnowledgeItem], settings: AugmentSection, seed: int, shard: tuple[int, int] | None = None
) -> Estimate:
    """Walk through all calls, as far as the cache knows what follows from a reply.

    Goes through the same checks as `kore.augment.grow`: settings, templates, ids, teacher, pictures.

    Raises:
        DataError, UsageError: as `grow`.
    """
    check_ids(items)
    templates = load_templates(Path(settings.templates) if settings.templates else None)
    teacher = choose_teacher(settings.teacher, settings, templates, seed)
    if needs_model(settings.strategy) and settings.teacher == "offline":
        raise UsageError(
            f"strategy {settings.strategy} rephrases by a model", hint="--teacher openai:MODEL or hf:PATH"
        )
    if settings.judge:
        choose_teacher(settings.judge, settings, templates, seed)
    provider = choose_provider(settings)
    choose_encoder(settings.encoder, needed=provider.name != "none")
    for item in items:
        for place in item.images:
            if "://" not in place and not Path(place).is_file():
                raise DataError(f"no such picture: {place}", where=f"item {item.id}")
    store = ReplyStore(cache_home() / "replies") if teacher.cached else None
    indices = shard_indices(len(items), shard)
    total = Estimate(len(indices), teacher.cached, settings.price_in, settings.price_out)
    links = link_items(items) if settings.forest else {}
    for index in indices:
        if settings.strategy == "kore":
            _tree(items, index, settings, seed, teacher, store, total, links)
            total.searches += (1 + settings.vqa) if provider.name != "none" else 0
        elif settings.strategy == "text-aware":
            _count(
                make_call("rephrase", Rephrasings, items[index], seed, count=settings.copies),
                teacher,
                store,
                total,
            )
    return total


def _tree(
    items: Sequence[KnowledgeItem],
    index: int,
    settings: AugmentSection,
    seed: int,
    teacher: Teacher,
    store: ReplyStore | None,
    total: Estimate,
    links: dict[int, tuple[int, str]],
) -> None:
    item = items[index]
    if settings.questions:
        kept = _count(
            make_call("questions", Questions, item, seed, count=settings.questions), teacher, store, total
        )
        asked = parse(kept, Questions).questions if kept else None
        likely = (
            list(dict.fromkeys(asked))
            if asked is not None
            else ["?" * 60] * min(settings.questions, TYPICAL_QUESTIONS)
        )
        if settings.answers == "each":
            for question in likely[: settings.questions]:
                _count(make_call("answer", Answer, item, seed, question=question), teacher, store, total)
        elif likely:
            listed = "\n".join(f"{i}. {q}" for i, q in enumerate(likely[: settings.questions], 1))
            call = make_call("answers", Answers, item, seed, questions=listed, asked=tuple(likely))
            _count(call, teacher, store, total)
    _count(make_call("summary", Summary, item, seed), teacher, store, total)
    if settings.vqa:
        _count(make_call("vqa", Quadruplets, item, seed, count=settings.vqa), teacher, store, total)
    if index in links:
        other, link = links[index]
        _count(make_call("hop", Hops, item, seed, others=(items[other],), link=link), teacher, store, total)


def _count(call: Call, teacher: Teacher, store: ReplyStore | None, total: Estimate) -> str | None:
    """Count one call; returns the cached reply's text if there is one."""
    total.calls += 1
    kept = store.get(call.key(teacher.name, teacher.parameters)) if store else None
    if kept:
        total.cached += 1
        return kept.text
    if teacher.cached:
        total.tokens_in += estimate_tokens(call.system + call.user)
        total.tokens_out += EXPECTED_OUT.get(call.task, 200)
    return None
