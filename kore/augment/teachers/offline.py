"""The teacher without a model: rules over the item's facts and sentences. Deterministic, and plainly weaker.

It asks only what a template can ask; a text without facts, dates, figures, names or definitions yields
little.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kore.augment.call import Call
from kore.augment.schemas import (
    Answer,
    Answers,
    Hop,
    Hops,
    Quadruplet,
    Quadruplets,
    Questions,
    ReplyForm,
    Summary,
)
from kore.augment.teachers.patterns import Finding, findings, summary
from kore.augment.templates import Templates, Tier, draw, fill
from kore.augment.text import contains, language
from kore.data.records import KnowledgeItem
from kore.errors import UsageError
from kore.llm.request import Reply

NOTE = "the offline teacher asks only what simple rules find: weaker data than a model's"


class OfflineTeacher:
    """Replies from rules.

    Args:
        templates: wordings by language.
        seed: draws the wordings.
    """

    name = "offline"
    cached = False

    def __init__(self, templates: Mapping[str, Templates], seed: int) -> None:
        self.templates = templates
        self.seed = seed

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The rules' version."""
        return {"rules": 1}

    async def reply(self, call: Call, repair: tuple[str, str] | None = None) -> Reply:
        """Answer by rule.

        Raises:
            UsageError: judging and rephrasing need a model.
        """
        return Reply(self.form(call).model_dump_json())

    async def close(self) -> None:
        """Nothing to give back."""

    def form(self, call: Call) -> ReplyForm:
        """The reply as a form."""
        item = call.items[0]
        match call.task:
            case "questions":
                asked = self.trunk(item)[: int(call.values["count"])]
                return Questions(questions=[q for q, _ in asked], keys=[f.key for _, f in asked])
            case "answers":
                known = {q: f for q, f in self.trunk(item)}
                return Answers(answers=[self.sentence(item, known.get(q)) for q in call.values["asked"]])
            case "answer":
                found = dict(self.trunk(item)).get(call.values["question"])
                return Answer(answer=self.sentence(item, found))
            case "summary":
                return Summary(summary=summary(item, self.statements(item)))
            case "vqa":
                return Quadruplets(quadruplets=self.quadruplets(item)[: int(call.values["count"])])
            case "hop":
                return Hops(hops=self.hops(item, call.items[1], call.values["link"]))
        raise UsageError(
            f"the offline teacher cannot {call.task}", hint="name a model: --teacher openai:MODEL or hf:PATH"
        )

    def trunk(self, item: KnowledgeItem) -> list[tuple[str, Finding]]:
        """Questions of the dialogue with what they ask for; facts as follow-ups to the first turn."""
        asked = []
        for found in findings(item):
            tier = tier_of(self._language(item), found.key)
            options = (
                tier.follow_up if item.kind == "entity" and item.images and tier.follow_up else tier.train
            )
            question = draw(options, self.seed, item.id, found.key, "trunk")
            asked.append((self._fill(question, item, found, self._language(item).spoken(item)), found))
        return asked

    def sentence(self, item: KnowledgeItem, found: Finding | None) -> str:
        """The answer as the trunk gives it: the value of a fact, else the sentence that states it."""
        if found is None:
            return ""
        return found.answer if found.key.startswith("facts.") else found.evidence

    def statements(self, item: KnowledgeItem) -> list[str]:
        """One sentence per fact."""
        table = self._language(item)
        return [
            self._fill(tier_of(table, f.key).statement, item, f, item.title)
            for f in findings(item)
            if f.key.startswith("facts.")
        ]

    def quadruplets(self, item: KnowledgeItem) -> list[Quadruplet]:
        """One per finding; the subject is always the item itself."""
        made = []
        for found in findings(item):
            tier = tier_of(self._language(item), found.key)
            question = draw(tier.train, self.seed, item.id, found.key, "vqa")
            held_out = draw(tier.held_out, self.seed, item.id, found.key, "held out") if tier.held_out else ""
            made.append(
                Quadruplet(
                    question=self._fill(question, item, found, item.title),
                    rephrased=self._fill(held_out, item, found, item.title),
                    answer=found.answer,
                    subject=item.title,
                    hypernym=self._language(item).hypernym(item),
                    key=found.key,
                )
            )
        return made

    def hops(self, item: KnowledgeItem, other: KnowledgeItem, link: str) -> list[Hop]:
        """A fact of the other item asked through the link, and the link itself."""
        tier = self._language(item).hop
        places = {"s": item.title, "other": f'"{other.title}"' if other.kind == "news" else other.title}
        question = fill(draw(tier.train, self.seed, item.id, other.id, "hop"), **places)
        held_out = fill(draw(tier.held_out, self.seed, item.id, other.id, "hop"), **places)
        if contains(question, link) or contains(item.title, link):
            return []
        return [Hop(question=question, rephrased=held_out, answer=link)]

    def _language(self, item: KnowledgeItem) -> Templates:
        return self.templates[language(item.text or item.title)]

    def _fill(self, wording: str, item: KnowledgeItem, found: Finding, subject: str) -> str:
        key = found.key.partition(".")[2].replace("_", " ")
        return fill(wording, s=subject, k=key, v=found.answer, x=found.sentence, h=item.type)


def tier_of(templates: Templates, key: str) -> Tier:
    """The wordings behind a finding's key."""
    family, _, name = key.partition(".")
    return templates.fact(name) if family == "facts" else templates.patterns[name]
