"""Canaries of an export: prompts with the answers of base and adapter, by which a server is recognised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from kore.errors import MissingArtefact
from kore.io.jsonl import read_jsonl, write_jsonl

FILE = "canaries.jsonl"
IMAGES = "canaries"  # folder of their images

Order = Literal["plain", "text-first", "system"]


@dataclass(frozen=True)
class Answer:
    """One greedy answer.

    Attributes:
        text: without special tokens.
        logprobs: natural log-probabilities of its first tokens.
        ended: whether it ended by itself within the limit of tokens.
    """

    text: str
    logprobs: tuple[float, ...]
    ended: bool


@dataclass(frozen=True)
class Canary:
    """One prompt and both models' answers.

    Attributes:
        order: plain; text-first puts the image part behind the text; system begins with a system message.
        messages: in the OpenAI API's form; an image part is ``{"type": "image", "image": FILE}``, the file
            relative to the export.
        max_tokens: limit of the answers.
    """

    id: str
    order: Order
    messages: tuple[dict[str, Any], ...]
    max_tokens: int
    base: Answer
    adapter: Answer

    @property
    def differs(self) -> bool:
        """Whether base and adapter answer it differently."""
        return self.base.text != self.adapter.text

    @property
    def text(self) -> str:
        """The last message's text, for people."""
        parts = self.messages[-1]["content"]
        return " ".join(part["text"] for part in parts if part["type"] == "text")


def write_canaries(canaries: Sequence[Canary], folder: Path) -> None:
    """Write the file of an export's canaries."""
    write_jsonl(folder / FILE, [asdict(canary) for canary in canaries])


def read_canaries(folder: Path) -> list[Canary]:
    """The canaries of an export.

    Raises:
        MissingArtefact: the folder holds none.
    """
    path = folder / FILE
    if not path.is_file():
        raise MissingArtefact(
            f"no {FILE} in {folder}",
            hint="name a folder that kore export wrote; kore export RUN --restart writes the file again",
        )
    return [_canary(value) for _, value in read_jsonl(path)]


def _canary(value: dict[str, Any]) -> Canary:
    answers = {
        name: Answer(value[name]["text"], tuple(value[name]["logprobs"]), bool(value[name]["ended"]))
        for name in ("base", "adapter")
    }
    return Canary(
        str(value["id"]), value["order"], tuple(value["messages"]), int(value["max_tokens"]), **answers
    )
