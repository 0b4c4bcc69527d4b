"""Retrieval, the baseline that trains nothing: the nearest item's text is put before the question.

An item is found by its picture, by cosine similarity of the mean features of the model's own vision tower;
a question without a picture finds the item whose title it names. The base answers; it is what a user
would weigh training against.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from kore.data.objects import first_object
from kore.data.read import read_records
from kore.data.records import IMAGE_MARK, KnowledgeItem, KnowledgeTree, Message, encode
from kore.errors import DataError, MissingArtefact
from kore.io.files import hash_file, hash_json
from kore.models.adapter_off import adapter_off
from kore.models.generate import Engine, Prompt
from kore.models.processing import Encoder

if TYPE_CHECKING:
    from kore.models.load import Backbone

RAG = "rag"


def read_items(path: Path) -> list[KnowledgeItem]:
    """What may be looked up: a folder made by kore augment, its tree.jsonl, or a file of items.

    Raises:
        MissingArtefact: no such file, or a folder without trees.
        DataError: a bad line, or no item at all.
    """
    file = path / "tree.jsonl" if path.is_dir() else path
    if not file.exists():
        raise MissingArtefact(
            f"nothing to look up: {file}", hint="name items.jsonl, or a folder made by: kore augment"
        )
    first = first_object(file)
    if "trunk" in first:
        items = [tree.item for tree in read_records(KnowledgeTree, file)]
    else:
        items = list(read_records(KnowledgeItem, file))
    if not items:
        raise DataError("no items", where=str(file))
    return items


class Retriever:
    """Finds the item that a prompt is about.

    Args:
        items: what may be looked up; those with a picture are found by it.
        least: similarity below which nothing is put before the question; default: what an item's
            picture typically (median) has with the nearest picture of another item, so that a strange
            picture brings up nothing.
    """

    def __init__(
        self, backbone: Backbone, items: Sequence[KnowledgeItem], *, least: float | None = None
    ) -> None:
        self.backbone = backbone
        self.encoder = Encoder(backbone.processor)
        self.items = list(items)
        seen = [] if self.encoder.text_only else self.items
        shown = [(i, image) for i, item in enumerate(seen) for image in item.images]
        self._owner = [i for i, _ in shown]
        self._known: dict[str, Tensor] = {}
        self._index = torch.stack([self.embed(image) for _, image in shown]) if shown else None
        self.least = self._strange() if least is None else least

    @cached_property
    def fingerprint(self) -> str:
        """Of the items, with the bytes of their pictures: answers with other items are other answers."""
        known = [
            [encode(item.model_copy(update={"image": None})), *(hash_file(Path(i)) for i in item.images)]
            for item in self.items
        ]
        return hash_json([known, self.least])

    def nearest(self, prompt: Prompt) -> tuple[KnowledgeItem, float] | None:
        """The item that fits a prompt best, with its similarity; None where nothing does."""
        if prompt.images and self._index is not None:
            scores = self._index @ self.embed(_asked_about(prompt))
            best = int(scores.argmax())
            if float(scores[best]) >= self.least:
                return self.items[self._owner[best]], float(scores[best])
            return None
        text = " ".join(turn.value for turn in prompt.turns).lower()
        named = [item for item in self.items if item.title.lower() in text]
        return (max(named, key=lambda item: len(item.title)), 1.0) if named and not prompt.images else None

    def with_context(self, prompt: Prompt) -> tuple[Prompt, KnowledgeItem | None]:
        """The prompt with the nearest item's text before its last question, and that item."""
        found = self.nearest(prompt)
        if found is None:
            return prompt, None
        last = prompt.turns[-1]
        marks = last.value.count(IMAGE_MARK)
        question = last.value.replace(f"{IMAGE_MARK}\n", "").replace(IMAGE_MARK, "").strip()
        value = f"{IMAGE_MARK}\n" * marks + f"{found[0].text}\n{question}"
        turns = (*prompt.turns[:-1], Message(from_=last.from_, value=value))
        return Prompt(turns, prompt.images), found[0]

    def _strange(self) -> float:
        if self._index is None or len(set(self._owner)) < 2:
            return 0.0
        owner = torch.tensor(self._owner)
        likeness = self._index @ self._index.T
        likeness[owner[:, None] == owner[None, :]] = -1.0
        return float(likeness.max(dim=1).values.median())

    def embed(self, image: Any) -> Tensor:
        """A picture's mean feature under the untouched base, (d,), of length one; kept for paths."""
        key = str(image) if isinstance(image, (str, Path)) else ""
        if key not in self._known:
            turn = Message(from_="human", value=f"{IMAGE_MARK}\n")
            features = self.encoder.prompt((turn,), [image])
            wanted = {
                k: self._place(v) for k, v in features.items() if "pixel" in k or "grid" in k or "sizes" in k
            }
            with torch.inference_mode(), adapter_off(self.backbone.model):
                found = _tensor(self.backbone.model.get_image_features(**wanted))
            feature = normalize(found.float().reshape(-1, found.shape[-1]).mean(0), dim=0).cpu()
            if not key:
                return feature
            self._known[key] = feature
        return self._known[key]

    def _place(self, value: Tensor) -> Tensor:
        dtype = self.backbone.model.dtype if value.is_floating_point() else value.dtype
        return value.to(self.backbone.device, dtype)


class RagEngine(Engine):
    """Answers as the base, each prompt with what was found for it.

    Args:
        retriever: on the same backbone.
    """

    def __init__(self, retriever: Retriever, *, batch: int = 16, max_new_tokens: int = 128) -> None:
        super().__init__(retriever.backbone, batch=batch, max_new_tokens=max_new_tokens)
        self.retriever = retriever

    @property
    def fingerprint(self) -> str:
        """Of base and items together."""
        return hash_json([self.backbone.fingerprint, self.retriever.fingerprint])

    @property
    def without_retrieval(self) -> Engine:
        """A plain engine on the same backbone."""
        return Engine(self.backbone, batch=self.batch, max_new_tokens=self.max_new_tokens)

    def answer(
        self,
        prompts: Sequence[Prompt],
        *,
        adapter: bool = False,
        temperature: float = 0.0,
        on_done: Callable[[int, str], None] | None = None,
    ) -> list[str]:
        """As the engine's; an adapter may answer with what was found, too."""
        found = [self.retriever.with_context(p)[0] for p in prompts]
        return super().answer(found, adapter=adapter, temperature=temperature, on_done=on_done)


def _asked_about(prompt: Prompt) -> Any:
    """The first picture of the last question, or the last one before it."""
    own = prompt.turns[-1].value.count(IMAGE_MARK)
    return prompt.images[-max(1, own)]


def _tensor(value: Any) -> Tensor:
    """The features in what families return in different wrappings."""
    while not isinstance(value, Tensor):
        if isinstance(value, (list, tuple)):
            value = torch.cat([_tensor(v).reshape(-1, _tensor(v).shape[-1]) for v in value])
            continue
        pooled = getattr(value, "pooler_output", None)
        value = pooled if pooled is not None else value.last_hidden_state
    return value
