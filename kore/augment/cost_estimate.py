"""What growing would cost, without asking anybody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from kore.artifacts.run import cache_home
from kore.augment.branches import SUMMARY_WORDS
from kore.augment.call import EXPECTED_OUT, Teacher, estimate_tokens, make_call
from kore.augment.factory import check_teachers, choose_encoder, choose_provider, choose_teacher
from kore.augment.fit import FitReport, Fitter
from kore.augment.grounding import Source, check
from kore.augment.images.store import check_picture
from kore.augment.inputs import check_ids, shard_indices
from kore.augment.item_linking import link_items
from kore.augment.parse import parse
from kore.augment.prompts import load_prompts
from kore.augment.samples import samples
from kore.augment.schemas import (
    Answer,
    Answers,
    Hops,
    Quadruplets,
    Questions,
    Rephrasings,
    ReplyForm,
    Summary,
    Verdict,
)
from kore.augment.teachers.offline import OfflineTeacher
from kore.augment.templates import Templates, draw, fill, load_templates
from kore.augment.text import language, word_limit
from kore.augment.trunk import distinct, heuristic
from kore.config.schema import AugmentSection
from kore.data.records import Branch, KnowledgeItem, KnowledgeTree, Turn
from kore.data.text import clip
from kore.llm.cache import ReplyStore
from kore.llm.rate_limit import price

F = TypeVar("F", bound=ReplyForm)
UNKNOWN = "?" * 60, "." * 60  # stands for a question and an answer that nobody has written yet
TYPICAL = "What is known of it? " * 3, "It is one of the best known of its kind there."  # 15 and 10 words
TYPICAL_QUESTIONS = 8  # turns that a teacher makes of one text: KORE-74K has 75,710 rounds on 9,422 items


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
    fit: FitReport | None = None

    @property
    def money(self) -> float | None:
        """What is still to be paid; None without prices."""
        return price(self.tokens_in, self.tokens_out, self.price_in, self.price_out) if self.paid else 0.0

    def to_json(self) -> dict[str, Any]:
        """Stable keys."""
        values = {k: v for k, v in self.__dict__.items() if not k.startswith("price_") and k != "fit"}
        return values | {"money": self.money} | ({"fit": self.fit.to_json()} if self.fit else {})


def check_own(item: KnowledgeItem) -> None:
    """Refuse an item whose own pictures, as far as they lie here, cannot be opened.

    Raises:
        DataError: names the picture and the item.
    """
    for place in item.images:
        if "://" not in place:
            check_picture(Path(place), f"item {item.id}")


def estimate(
    items: Sequence[KnowledgeItem],
    settings: AugmentSection,
    seed: int,
    shard: tuple[int, int] | None = None,
    fitter: Fitter | None = None,
) -> Estimate:
    """Walk through all calls, as far as the cache knows what follows from a reply.

    Goes through the same checks as `kore.augment.grow`: settings, templates, ids, teacher, pictures.

    Args:
        fitter: reports what would be split and left out; turns that a teacher has yet to write are counted
            as typical ones.

    Raises:
        DataError, UsageError: as `grow`.
    """
    check_ids(items)
    templates = load_templates(Path(settings.templates) if settings.templates else None)
    teacher = choose_teacher(settings.teacher, settings, templates, seed)
    judge = choose_teacher(settings.judge, settings, templates, seed) if settings.judge else None
    check_teachers(settings, teacher, judge)
    provider = choose_provider(settings)
    choose_encoder(settings.encoder, needed=provider.name != "none")
    for item in items:
        check_own(item)
    indices = shard_indices(len(items), shard)
    paid = teacher.cached or (judge is not None and judge.cached)
    total = Estimate(len(indices), paid, settings.price_in, settings.price_out)
    walk = _Walk(settings, seed, templates, teacher, judge, total)
    links = link_items(items) if settings.forest else {}
    for index in indices:
        if settings.strategy == "kore":
            linked = links.get(index)
            walk.tree(items[index], (items[linked[0]], linked[1]) if linked else None)
            total.searches += (1 + settings.vqa) if provider.name != "none" else 0
        elif settings.strategy == "text-aware":
            walk.ask("rephrase", Rephrasings, items[index], count=settings.copies)
        if fitter:
            _fit(walk.sketch(items[index]), templates, settings, seed, fitter, items)
    if fitter:
        fitter.report.estimated = walk.typical
        total.fit = fitter.report
    return total


def _fit(
    tree: KnowledgeTree,
    templates: Mapping[str, Templates],
    settings: AugmentSection,
    seed: int,
    fitter: Fitter,
    items: Sequence[KnowledgeItem],
) -> None:
    """Split a sketched tree; a picture that is not here counts as one that is."""
    here = next((image for item in items for image in item.images if "://" not in image), None)
    if any("://" in image for image in tree.item.images):
        tree = tree.model_copy(update={"item": tree.item.model_copy(update={"image": here})})
    words = templates[language(tree.item.text or tree.item.title)]
    fitter.taught(tree, list(samples(tree, words, seed, 1, fitter, names=bool(settings.names))))


@dataclass
class _Walk:
    """Counts the calls that `kore.augment.pipeline` would make."""

    settings: AugmentSection
    seed: int
    templates: Mapping[str, Templates]
    teacher: Teacher
    judge: Teacher | None
    total: Estimate

    def __post_init__(self) -> None:
        own = self.settings.templates
        self._turns: list[Turn] = []
        self._branches: list[Branch] = []
        self.typical = False
        self._prompts = load_prompts(Path(own) if own else None)
        self._store = ReplyStore(cache_home() / "replies")

    def ask(self, task: str, form: type[F], item: KnowledgeItem, **values: Any) -> F | None:
        """Count one call of the teacher; its reply if the cache has it."""
        return self._count(self.teacher, task, form, item, **values)

    def _count(self, of: Teacher, task: str, form: type[F], item: KnowledgeItem, **values: Any) -> F | None:
        call = make_call(task, form, item, self.seed, prompts=self._prompts, **values)
        self.total.calls += 1
        if isinstance(of, OfflineTeacher):  # costs nothing
            return cast(F, of.form(call))
        if not of.cached:
            return None
        if kept := self._store.get(call.key(of.name, of.parameters)):
            self.total.cached += 1
            return parse(kept.text, form)
        self.total.tokens_in += estimate_tokens(call.system + call.user)
        self.total.tokens_out += EXPECTED_OUT.get(task, 200)
        return None

    def tree(self, item: KnowledgeItem, linked: tuple[KnowledgeItem, str] | None) -> None:
        """One item's calls; where a reply is not known yet, as many as are typical."""
        if count := self.settings.questions:
            self._trunk(item, count)
        if item.images:
            summary = self.ask("summary", Summary, item)
            pair = self.templates[language(item.text or item.title)].kind(item).caption
            question = fill(draw(pair.questions, self.seed, item.id, "caption"), type=item.type)
            self._judged(item, [(question, summary.summary.strip())] if summary else [UNKNOWN])
            answer = summary.summary if summary else clip(item.text, word_limit(item.text, SUMMARY_WORDS))
            self._sketch(item, "caption", question, answer)
        if count := self.settings.vqa:
            found = self.ask("vqa", Quadruplets, item, count=count)
            known = [(q.question, q.answer) for q in found.quadruplets[:count]] if found else []
            self._judged(item, known if found else [UNKNOWN] * count)
            for question, answer in known:
                self._sketch(item, "vqa", question, answer)
        if linked:
            self.ask("hop", Hops, item, others=(linked[0],), link=linked[1])

    def sketch(self, item: KnowledgeItem) -> KnowledgeTree:
        """The tree of the item whose calls were counted last, with typical turns where none are known."""
        words = self.templates[language(item.text or item.title)]
        turns, self._turns = self._turns, []
        branches, self._branches = self._branches, []
        extra = {}
        if self.settings.strategy != "kore":
            question = heuristic(item, words, self.seed).question if item.images else item.title
            made = {"question": question, "answer": item.text.strip() or item.title}
            extra = {"plain": {"strategy": self.settings.strategy, "samples": [made | _shown(item)]}}
        elif item.images:
            turns = [heuristic(item, words, self.seed), *turns]
        return KnowledgeTree(item=item, trunk=turns, branches=branches, extra=extra)

    def _sketch(
        self, item: KnowledgeItem, task: Literal["caption", "vqa"], question: str, answer: str
    ) -> None:
        image = item.images[0] if item.images else None
        self._branches.append(Branch(task=task, question=question, answer=answer, image=image))

    def _trunk(self, item: KnowledgeItem, count: int) -> None:
        reply = self.ask("questions", Questions, item, count=count)
        typical = [UNKNOWN[0]] * min(count, TYPICAL_QUESTIONS)
        asked = distinct(reply, count)[0] if reply else typical
        answers: list[str] | None = None
        if self.settings.answers == "each":
            got = [self.ask("answer", Answer, item, question=question) for question in asked]
            answers = [a.answer for a in got if a is not None]
        elif asked:
            listed = "\n".join(f"{i}. {q}" for i, q in enumerate(asked, 1))
            batch = self.ask("answers", Answers, item, questions=listed, asked=tuple(asked))
            answers = batch.answers if batch else None
        known = answers is not None and len(answers) == len(asked)
        pairs = list(zip(asked, answers or [], strict=True)) if known else [UNKNOWN] * len(asked)
        self._judged(item, pairs)
        self.typical |= not known and bool(asked)
        made = pairs if known else [TYPICAL] * len(asked)
        self._turns = [Turn(question=q, answer=a, origin="dialogue") for q, a in made if a.strip()]

    def _judged(self, item: KnowledgeItem, pairs: list[tuple[str, str]]) -> None:
        """The judge is asked about what the rules let through."""
        if self.judge is None or self.settings.grounding == "off":
            return
        source = Source.of(item)
        for question, answer in pairs:
            if (question, answer) == UNKNOWN or check(question, answer, source).grounded:
                self._count(self.judge, "judge", Verdict, item, question=question, answer=answer)


def _shown(item: KnowledgeItem) -> dict[str, str]:
    return {"image": item.images[0]} if item.images else {}
