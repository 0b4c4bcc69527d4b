"""The item's own facts as training pairs, whatever the teacher wrote: each fact is taught and asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from kore.augment.teachers.offline import OfflineTeacher
from kore.augment.text import contains
from kore.data.records import Branch, KnowledgeItem, Origin, Turn

if TYPE_CHECKING:
    from kore.augment.branches import Grower
    from kore.augment.templates import Templates

PROMPT = "facts"  # the origin of these pairs


def fact_turns(
    item: KnowledgeItem, trunk: Sequence[Turn], templates: Mapping[str, Templates], seed: int
) -> list[Turn]:
    """A turn for each fact whose value no answer of the dialogue holds."""
    said = [turn.answer for turn in trunk if turn.origin == "dialogue"]
    made = Origin(by="template", prompt=PROMPT, verdict="grounded")
    return [
        Turn(
            question=question,
            answer=found.answer,
            origin="dialogue",
            made=made,
            evidence=found.evidence,
            extra={"key": found.key},
        )
        for question, found in OfflineTeacher(templates, seed).trunk(item)
        if found.key.startswith("facts.") and not any(contains(answer, found.answer) for answer in said)
    ]


async def fact_branches(
    grower: Grower, visual: Sequence[Branch], templates: Mapping[str, Templates]
) -> list[Branch]:
    """A visual question for each fact that none of the teacher's asks for."""
    asked = {branch.key for branch in visual} | {branch.answer.casefold() for branch in visual}
    missing = [
        q
        for q in OfflineTeacher(templates, grower.seed).quadruplets(grower.item)
        if (q.key or "").startswith("facts.") and q.key not in asked and q.answer.casefold() not in asked
    ]
    own = replace(grower, screen=replace(grower.screen, maker="template", judge=None))
    branches = [await own.visual(q, PROMPT, len(visual) + n) for n, q in enumerate(missing)]
    return [branch for branch in branches if branch is not None]
