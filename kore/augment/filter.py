"""Letting a generated pair through, or not: the grounding rules, a judge if there is one, and what to do
then."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kore.augment.asking import Asker
from kore.augment.grounding import Checked, Source, check
from kore.augment.pair_checks import pair_faults
from kore.augment.schemas import Verdict
from kore.data.records import KnowledgeItem, Origin
from kore.llm.request import Refused, Unusable

if TYPE_CHECKING:
    from kore.augment.trunk import Harvest


@dataclass(frozen=True)
class Screen:
    """Checks pairs.

    Attributes:
        mode: drop throws ungrounded pairs away, flag keeps them marked, off does not look.
        maker: the teacher's name, written into each pair's origin.
        judge: asked about what the rules let through.
    """

    mode: str
    maker: str
    judge: Asker | None
    seed: int

    async def look(
        self,
        item: KnowledgeItem,
        question: str,
        answer: str,
        source: Source,
        prompt: str,
        harvest: Harvest,
        task: str = "dialogue",
    ) -> tuple[Origin | None, str | None]:
        """The pair's origin with the verdict, None if it is dropped; and the sentence that supports it."""
        await asyncio.sleep(0)  # checking takes its time: replies that came meanwhile are taken in first
        if self.mode == "off":
            return Origin(by=self.maker, prompt=prompt), None
        faults = pair_faults(question, answer, item) if task in ("dialogue", "vqa", "hop") else []
        if faults and self.maker not in ("template", "offline"):
            harvest.reject(task, question, answer, faults)
            return None, None
        found = check(question, answer, source)
        if found.grounded and self.judge is not None:
            found = await self._judged(item, question, answer, found, harvest)
        if not found.grounded:
            harvest.reject(task, question, answer, found.reasons)
            if self.mode == "drop":
                return None, None
        verdict = "grounded" if found.grounded else "ungrounded"
        return Origin(by=self.maker, prompt=prompt, verdict=verdict, reasons=found.reasons), found.evidence

    async def _judged(
        self, item: KnowledgeItem, question: str, answer: str, found: Checked, harvest: Harvest
    ) -> Checked:
        assert self.judge is not None
        call = self.judge.call("judge", Verdict, item, self.seed, question=question, answer=answer)
        try:
            verdict = await self.judge.ask(call, Verdict, harvest.usage)
        except (Refused, Unusable) as error:
            harvest.notes.append(f"the judge did not answer: {error}")
            return found
        if verdict.supported:
            return found
        return Checked(False, [f"judge: {verdict.reason or 'not supported'}"], found.evidence)
