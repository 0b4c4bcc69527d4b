"""Retrieval, the baseline that trains nothing: the nearest item's text is put before the question.

An item is found by its picture, by cosine similarity of the mean features of the model's own vision tower;
a question without a picture finds the item whose title it names. The base answers; it is what a user
would weigh training against.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from kore.models.generate import Engine, Prompt
from kore.records import IMAGE_MARK, KnowledgeItem, Message

if TYPE_CHECKING:
    from kore.models.load import Backbone


class RagEngine(Engine):
    """Answers prompts with the nearest item's text in them.

    Args:
        items: what may be looked up; those with a picture are found by it.
        least: similarity below which nothing is put before the question; default: what an item's
            picture typically (median) has with the nearest picture of another item, so that a strange
            picture brings up nothing.
    """

    def __init__(
        self, backbone: Backbone, items: Sequence[KnowledgeItem], *, least: float | None = None, **rest: Any
    ) -> None:
        super().__init__(backbone, **rest)
        self.items = list(items)
        shown = [(i, image) for i, item in enumerate(self.items) for image in item.images]
        self._owner = [i for i, _ in shown]
        self._known: dict[str, Tensor] = {}
        self._index = torch.stack([self.embed(image) for _, image in shown]) if shown else None
        self.least = self._strange() if least is None else least

    def answer(
        self,
        prompts: Sequence[Prompt],
        *,
        adapter: bool = True,
        temperature: float = 0.0,
        on_done: Callable[[int, str], None] | None = None,
    ) -> list[str]:
        """As the engine's, each prompt with what was found for it."""
        found = [self.with_context(p) for p in prompts]
        return super().answer(found, adapter=adapter, temperature=temperature, on_done=on_done)

    def nearest(self, prompt: Prompt) -> tuple[KnowledgeItem, float] | None:
        """The item that fits a prompt best, with its similarity; None where nothing does."""
        if prompt.images and self._index is not None:
            scores = self._index @ self.embed(prompt.images[0])
            best = int(scores.argmax())
            if float(scores[best]) >= self.least:
                return self.items[self._owner[best]], float(scores[best])
            return None
        text = " ".join(turn.value for turn in prompt.turns).lower()
        named = [item for item in self.items if item.title.lower() in text]
        return (max(named, key=lambda item: len(item.title)), 1.0) if named and not prompt.images else None

    def with_context(self, prompt: Prompt) -> Prompt:
        """The prompt with the nearest item's text before its last question."""
        found = self.nearest(prompt)
        if found is None:
            return prompt
        last = prompt.turns[-1]
        marks = last.value.count(IMAGE_MARK)
        question = last.value.replace(f"{IMAGE_MARK}\n", "").replace(IMAGE_MARK, "").strip()
        value = f"{IMAGE_MARK}\n" * marks + f"{found[0].text}\n{question}"
        return Prompt((*prompt.turns[:-1], Message(from_=last.from_, value=value)), prompt.images)

    def _strange(self) -> float:
        if self._index is None or len(set(self._owner)) < 2:
            return 0.0
        owner = torch.tensor(self._owner)
        likeness = self._index @ self._index.T
        likeness[owner[:, None] == owner[None, :]] = -1.0
        return float(likeness.max(dim=1).values.median())

    def embed(self, image: Any) -> Tensor:
        """A picture's mean feature, (d,), of length one."""
        key = str(image)
        if key not in self._known:
            turn = Message(from_="human", value=f"{IMAGE_MARK}\n")
            features = self.encoder.prompt((turn,), [image])
            wanted = {
                k: self._place(v) for k, v in features.items() if "pixel" in k or "grid" in k or "sizes" in k
            }
            with torch.inference_mode():
                found = _tensor(self.backbone.model.get_image_features(**wanted))
            self._known[key] = normalize(found.float().reshape(-1, found.shape[-1]).mean(0), dim=0).cpu()
        return self._known[key]


def _tensor(value: Any) -> Tensor:
    """The features in what families return in different wrappings."""
    while not isinstance(value, Tensor):
        if isinstance(value, (list, tuple)):
            value = torch.cat([_tensor(v).reshape(-1, _tensor(v).shape[-1]) for v in value])
            continue
        pooled = getattr(value, "pooler_output", None)
        value = pooled if pooled is not None else value.last_hidden_state
    return value
