"""A call to a teacher, and what every teacher can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from kore.augment.prompts import Prompt, load_prompts
from kore.augment.schemas import ReplyForm, schema_of
from kore.augment.templates import draw, fill
from kore.data.records import KnowledgeItem
from kore.data.text import is_unspaced, length
from kore.io.files import hash_json
from kore.llm.request import Reply


@dataclass(frozen=True)
class Call:
    """One question.

    Attributes:
        task: which prompt: questions, answers, answer, summary, vqa, hop, judge, rephrase.
        form: what the reply must look like.
        prompt: which wordings were drawn, e.g. ``questions/3/1``.
        items: the item(s) it is about; the offline teacher reads these, not the prompt.
        values: what was filled into the prompt beside the item's text.
    """

    task: str
    system: str
    user: str
    form: type[ReplyForm]
    prompt: str
    items: tuple[KnowledgeItem, ...]
    values: Mapping[str, Any] = field(default_factory=dict)

    def key(self, teacher: str, parameters: Mapping[str, Any]) -> str:
        """Content address of the reply: model, parameters, prompt and schema."""
        return hash_json([teacher, dict(parameters), self.system, self.user, self.schema])

    @property
    def expected(self) -> tuple[int, int]:
        """Tokens in and out, roughly."""
        return estimate_tokens(self.system + self.user), EXPECTED_OUT.get(self.task, 200)

    @property
    def schema(self) -> dict[str, object]:
        """The JSON schema of the reply."""
        return schema_of(self.form)


class Teacher(Protocol):
    """Answers calls. ``name`` and ``parameters`` enter the cache key."""

    @property
    def name(self) -> str:
        """For example ``openai:gpt-4o``."""
        ...

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Everything beside the prompt that shapes a reply."""
        ...

    @property
    def cached(self) -> bool:
        """Whether replies are worth keeping (they cost something)."""
        ...

    async def reply(self, call: Call, repair: tuple[str, str] | None = None) -> Reply:
        """Answer one call; `repair` holds a bad reply and what is wrong with it.

        Raises:
            Busy: try again later. Refused: declined. NoReply: nothing usable came back.
            ProviderError: no use in trying again.
        """
        ...

    async def close(self) -> None:
        """Give connections back."""
        ...


def make_call(
    task: str,
    form: type[ReplyForm],
    item: KnowledgeItem,
    seed: int,
    *,
    prompts: Mapping[str, Prompt] | None = None,
    others: tuple[KnowledgeItem, ...] = (),
    **values: Any,
) -> Call:
    """A call about `item`, its wordings drawn by `seed` and the item's id, from the shipped ones without
    `prompts`."""
    wordings = (prompts or load_prompts())[task]
    system = draw(wordings.system, seed, item.id, task, "system")
    user = draw(wordings.user, seed, item.id, task, "user")
    number = wordings.system.index(system), wordings.user.index(user)
    shown = {k: v if isinstance(v, str) else str(v) for k, v in values.items()}
    if others:
        shown |= {"other_title": others[0].title, "other_text": source_text(others[0])}
    shown |= {"title": item.title, "text": source_text(item), "type": item.type, "kind": item.kind}
    return Call(
        task, system, fill(user, **shown), form, f"{task}/{number[0]}/{number[1]}", (item, *others), values
    )


def source_text(item: KnowledgeItem) -> str:
    """Everything that an item says: its text, date and facts."""
    lines = [item.text.strip()]
    if item.date:
        lines.append(f"Date: {item.date}")
    lines += [f"{key}: {', '.join(v) if isinstance(v, list) else v}" for key, v in item.facts.items()]
    return "\n".join(line for line in lines if line)


def estimate_tokens(text: str) -> int:
    """Tokens of a text, roughly: four letters each, or one per letter of an unspaced script."""
    return length(text) if is_unspaced(text) else max(1, len(text) // 4)


EXPECTED_OUT = {
    "questions": 220,
    "answers": 420,
    "answer": 45,
    "summary": 45,
    "vqa": 420,
    "hop": 120,
    "judge": 30,
    "rephrase": 600,
}
"""Tokens that a reply of each task takes, roughly, for estimates before it is there."""
