"""The trunk of a knowledge tree: a dialogue about the item's own picture (paper, 4.2.1 step 1)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from kore.augment.asking import Asker, Usage
from kore.augment.filter import Screen
from kore.augment.grounding import Source
from kore.augment.schemas import Answer, Answers, Questions
from kore.augment.templates import Templates, draw, fill
from kore.augment.text import fold
from kore.data.records import KnowledgeItem, Origin, Turn
from kore.llm.request import Refused, Unusable


@dataclass
class Harvest:
    """What is made for one item, what was thrown away and why."""

    rejected: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)

    def reject(self, task: str, question: str, answer: str, reasons: list[str]) -> None:
        """Note a pair that is not used."""
        self.rejected.append({"task": task, "question": question, "answer": answer, "reasons": reasons})


def heuristic(item: KnowledgeItem, templates: Templates, seed: int, copy: int = 0) -> Turn:
    """The first turn, from templates: what the picture shows."""
    pair = templates.kind(item).heuristic
    places = {"title": item.title, "type": item.type, "name": item.title}
    question = fill(draw(pair.questions, seed, item.id, "heuristic", turn=copy), **places)
    answer = fill(draw(pair.answers, seed, item.id, "heuristic answer", turn=copy), **places)
    made = Origin(by="template", prompt=f"{item.kind}.heuristic", verdict="grounded")
    return Turn(question=question, answer=answer, origin="heuristic", made=made)


async def grow_trunk(
    item: KnowledgeItem,
    templates: Templates,
    asker: Asker,
    screen: Screen,
    source: Source,
    seed: int,
    harvest: Harvest,
) -> list[Turn]:
    """Heuristic turn (when there is a picture), then the dialogue that the teacher makes from the text."""
    turns = [heuristic(item, templates, seed)] if item.images else []
    count = asker.settings.questions
    if not count:
        return turns
    call = asker.call("questions", Questions, item, seed, count=count)
    try:
        asked = await asker.ask(call, Questions, harvest.usage)
    except (Refused, Unusable) as error:
        harvest.notes.append(f"no dialogue: {error}")
        return turns
    questions, keys = distinct(asked, count)
    if not questions:
        return turns
    answers, prompt = await _answers(item, questions, asker, seed, harvest)
    for question, answer, key in zip(questions, answers, keys, strict=True):
        if not answer.strip():
            harvest.reject("dialogue", question, answer, ["the text has no answer"])
            continue
        made, evidence = await screen.look(item, question, answer, source, prompt, harvest)
        if made is not None:
            extra = {"key": key} if key else {}
            turns.append(
                Turn(
                    question=question,
                    answer=answer.strip(),
                    origin="dialogue",
                    made=made,
                    evidence=evidence,
                    extra=extra,
                )
            )
    return turns


def distinct(asked: Questions, count: int) -> tuple[list[str], list[str]]:
    """Questions without repeats, at most `count`, with their keys."""
    keys = asked.keys if len(asked.keys) == len(asked.questions) else [""] * len(asked.questions)
    seen: dict[str, tuple[str, str]] = {}
    for question, key in zip(asked.questions, keys, strict=True):
        if question.strip():
            seen.setdefault(fold(question).strip(" ?？.؟"), (question.strip(), key))
    pairs = list(seen.values())[:count]
    return [q for q, _ in pairs], [k for _, k in pairs]


async def _answers(
    item: KnowledgeItem, questions: list[str], asker: Asker, seed: int, harvest: Harvest
) -> tuple[list[str], str]:
    """One answer per question, in one call or one each; fewer answers than questions leave the rest empty."""
    if asker.settings.answers == "each":
        return await _each(item, questions, asker, seed, harvest)
    listed = "\n".join(f"{i}. {q}" for i, q in enumerate(questions, 1))
    call = asker.call("answers", Answers, item, seed, questions=listed, asked=tuple(questions))
    try:
        got = await asker.ask(call, Answers, harvest.usage)
    except (Refused, Unusable) as error:
        harvest.notes.append(f"no answers: {error}")
        return [""] * len(questions), call.prompt
    if len(got.answers) != len(questions):
        # an answer in the wrong place teaches a falsehood: ask one by one instead
        harvest.notes.append(f"{len(got.answers)} answers to {len(questions)} questions: asked one by one")
        return await _each(item, questions, asker, seed, harvest)
    return got.answers, call.prompt


async def _each(
    item: KnowledgeItem, questions: list[str], asker: Asker, seed: int, harvest: Harvest
) -> tuple[list[str], str]:
    async def one(question: str) -> str:
        call = asker.call("answer", Answer, item, seed, question=question)
        try:
            return (await asker.ask(call, Answer, harvest.usage)).answer
        except (Refused, Unusable) as error:
            harvest.notes.append(f"no answer: {error}")
            return ""

    answers = await asyncio.gather(*(one(q) for q in questions))
    return list(answers), asker.call("answer", Answer, item, seed, question="").prompt
