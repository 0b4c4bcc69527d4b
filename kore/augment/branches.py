"""The branches of a knowledge tree: recognition, caption and visual questions (paper, 4.2.1 steps 3 to 5)."""

from __future__ import annotations

from dataclasses import dataclass

from kore.augment.asking import Asker
from kore.augment.filter import Screen
from kore.augment.grounding import Source, best_sentences
from kore.augment.images.gallery import Gallery, Views
from kore.augment.schemas import Hops, Quadruplet, Quadruplets, Summary
from kore.augment.templates import Templates, draw, fill
from kore.augment.text import content_words, fold, word_limit
from kore.augment.trunk import Harvest
from kore.augment.vqa_checks import PLACE, pattern_of, subject_faults
from kore.data.records import Branch, KnowledgeItem, Origin
from kore.data.text import clip, words
from kore.llm.request import Refused, Unusable

SUMMARY_WORDS = 25


@dataclass(frozen=True)
class Grower:
    """Makes one item's branches.

    Attributes:
        views: the pictures chosen for this item.
    """

    item: KnowledgeItem
    templates: Templates
    asker: Asker
    screen: Screen
    source: Source
    seed: int
    views: Views
    gallery: Gallery
    harvest: Harvest

    def recognition(self, negative_of: KnowledgeItem | None = None) -> Branch | None:
        """Is this the item? Yes; or, with the name of another item, No."""
        if not self.views.recognition:
            return None
        shown = negative_of or self.item
        pair = self.templates.kind(self.item).recognition
        purpose = ("recognition", shown.id)
        question = fill(
            draw(pair.questions, self.seed, self.item.id, *purpose), title=shown.title, type=self.item.type
        )
        words_ = self.templates.instructions
        return Branch(
            task="recognition",
            question=question,
            answer=words_.no if negative_of else words_.yes,
            image=self.views.recognition,
            made=Origin(by="template", prompt=f"{self.item.kind}.recognition", verdict="grounded"),
            extra={"not": shown.id, "not_title": shown.title} if negative_of else {},
        )

    async def caption(self) -> Branch | None:
        """Describe it: the name or title, then a summary of at most 25 words."""
        if not self.views.caption:
            return None
        call = self.asker.call("summary", Summary, self.item, self.seed)
        try:
            summary = (await self.asker.ask(call, Summary, self.harvest.usage)).summary.strip()
        except (Refused, Unusable) as error:
            self.harvest.notes.append(f"no caption: {error}")
            return None
        if not set(content_words(summary)) - set(content_words(self.item.title)):
            return None  # it says no more than the title
        if len(words(summary)) > (most := word_limit(summary, SUMMARY_WORDS)):
            summary = clip(summary, most)
        pair = self.templates.kind(self.item).caption
        question = fill(draw(pair.questions, self.seed, self.item.id, "caption"), type=self.item.type)
        made, evidence = await self.screen.look(
            self.item, question, summary, self.source, call.prompt, self.harvest, "caption"
        )
        if made is None:
            return None
        return Branch(
            task="caption",
            question=question,
            answer=named(self.item, summary, draw(pair.answers, self.seed, self.item.id, "caption answer")),
            image=self.views.caption,
            made=made,
            evidence=evidence,
            extra={"summary": summary},
        )

    async def vqa(self) -> list[Branch]:
        """Up to five visual questions, each with a picture of its subject."""
        count = self.asker.settings.vqa
        if not count:
            return []
        call = self.asker.call("vqa", Quadruplets, self.item, self.seed, count=count)
        try:
            quadruplets = (await self.asker.ask(call, Quadruplets, self.harvest.usage)).quadruplets
        except (Refused, Unusable) as error:
            self.harvest.notes.append(f"no visual questions: {error}")
            return []
        made = []
        for number, quadruplet in enumerate(_distinct(quadruplets)[:count]):
            branch = await self.visual(quadruplet, call.prompt, number)
            if branch is not None:
                made.append(branch)
        return made

    async def visual(self, q: Quadruplet, prompt: str, number: int) -> Branch | None:
        """One visual question with a picture of its subject; None if it is rejected."""
        faults = subject_faults(q.question, q.answer, q.subject, q.hypernym)
        if faults:
            self.harvest.reject("vqa", q.question, q.answer, faults)
            return None
        made, evidence = await self.screen.look(
            self.item, q.question, q.answer, self.source, prompt, self.harvest, "vqa"
        )
        if made is None:
            return None
        view = await self.gallery.subject(self.item, self.views, q.subject, q.hypernym, number)
        pattern = pattern_of(q.question, q.subject)
        extra: dict[str, object] = {"pattern": pattern, "shown": view.shows_subject}
        if q.rephrased and not subject_faults(q.rephrased, q.answer, q.subject, q.hypernym):
            extra["held_out"] = pattern_of(q.rephrased, q.subject)
        return Branch(
            task="vqa",
            question=point_at(pattern, self.templates, q.subject, q.hypernym, view.shows_subject),
            answer=q.answer.strip().removesuffix("."),
            image=view.image,
            subject=q.subject,
            hypernym=q.hypernym,
            key=q.key,
            made=made,
            evidence=evidence,
            extra=extra,
        )

    async def hops(self, other: KnowledgeItem, link: str) -> list[Branch]:
        """Questions across two linked items (forest): about this picture, answered by the other text."""
        call = self.asker.call("hop", Hops, self.item, self.seed, others=(other,), link=link)
        try:
            found = (await self.asker.ask(call, Hops, self.harvest.usage)).hops
        except (Refused, Unusable) as error:
            self.harvest.notes.append(f"no question across items: {error}")
            return []
        source, theirs, made = Source.of(self.item, other), Source.of(other), []
        for hop in found[:2]:
            kind = self.templates.hypernym(self.item)
            faults = subject_faults(hop.question, hop.answer, self.item.title, kind)
            if faults:
                self.harvest.reject("hop", hop.question, hop.answer, faults)
                continue
            origin, _ = await self.screen.look(
                self.item, hop.question, hop.answer, source, call.prompt, self.harvest, "hop"
            )
            if origin is None:
                continue
            told = f"{link} {hop.answer}"  # what leads from the one text to the other
            evidence = [*best_sentences(told, self.source), *best_sentences(told, theirs)]
            pattern = pattern_of(hop.question, self.item.title)
            extra: dict[str, object] = {
                "pattern": pattern,
                "other": other.id,
                "link": link,
                "shown": bool(self.views.trunk),
            }
            if hop.rephrased and not subject_faults(hop.rephrased, hop.answer, self.item.title, kind):
                extra["held_out"] = pattern_of(hop.rephrased, self.item.title)
            made.append(
                Branch(
                    task="hop",
                    question=point_at(pattern, self.templates, self.item.title, kind, bool(self.views.trunk)),
                    answer=hop.answer.strip().removesuffix("."),
                    image=self.views.trunk,
                    subject=self.item.title,
                    hypernym=kind,
                    made=origin,
                    evidence=" ".join(evidence) or None,
                    extra=extra,
                )
            )
        return made


def point_at(
    pattern: str,
    templates: Templates,
    subject: str,
    hypernym: str,
    shown: bool,
    copy: int = 0,
    held_out: bool = False,
) -> str:
    """The question with "the <hypernym> in the image" for the subject, or its name where no picture shows
    it."""
    if not shown:
        return pattern.replace(PLACE, subject)
    options = templates.subjects.held_out if held_out else templates.subjects.train
    phrase = fill(options[copy % len(options)], h=_kind_word(hypernym))
    filled = pattern.replace(PLACE, phrase)
    return filled[:1].upper() + filled[1:]


def named(item: KnowledgeItem, summary: str, opener: str) -> str:
    """A caption that opens with the name or title."""
    if fold(summary).startswith(fold(item.title)):
        return summary
    return fill(opener, title=item.title, summary=summary)


def _kind_word(hypernym: str) -> str:
    """Lower case unless it is a name or an abbreviation (as in 'the TV series')."""
    return " ".join(w if w[1:] != w[1:].lower() else w.lower() for w in hypernym.split())


def _distinct(quadruplets: list[Quadruplet]) -> list[Quadruplet]:
    seen: dict[str, Quadruplet] = {}
    for q in quadruplets:
        seen.setdefault(fold(q.question).strip(" ?？؟."), q)
    return list(seen.values())
