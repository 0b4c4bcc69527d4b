"""A conversation: questions with images, the answers by model, and the whole as Markdown."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kore.io.files import atomic_write

SAME_WEIGHTS = ("base", "rag")
EMPTY = "(empty answer)"


@dataclass
class Answer:
    """One model's answer, growing while it streams."""

    model: str
    text: str = ""
    seconds: float | None = None
    stopped: bool = False
    done: bool = False


@dataclass
class Exchange:
    """One question and its answers. `source`: the adapter that was loaded."""

    text: str
    images: list[str]
    temperature: float = 0.0
    source: str = ""
    answers: dict[str, Answer] = field(default_factory=dict)
    error: str | None = None
    done: bool = False

    def answer(self, model: str) -> Answer:
        """A model's answer, created with its first piece."""
        return self.answers.setdefault(model, Answer(model))

    def take(self, event: dict[str, Any]) -> None:
        """Fold in one line from the child."""
        if "error" in event:
            self.error = str(event["error"])
            self.done = True
        elif event.get("done"):
            self.done = True
        elif "delta" in event:
            self.answer(str(event["model"])).text += str(event["delta"])
        elif "answer" in event:
            answer = self.answer(str(event["model"]))
            answer.text, answer.seconds, answer.done = str(event["answer"]), event.get("seconds"), True
            answer.stopped = bool(event.get("stopped"))


def history(exchanges: list[Exchange], source: str) -> list[dict[str, Any]]:
    """The earlier exchanges in the child's format, with each model's complete answers.

    Answers of other adapters than `source` are left out: none of the present models gave them.
    """
    turns: list[dict[str, Any]] = []
    for exchange in exchanges:
        answers = {
            name: answer.text
            for name, answer in exchange.answers.items()
            if answer.done and (name in SAME_WEIGHTS or exchange.source == source)
        }
        if answers and not exchange.error:
            turns.append({"text": exchange.text, "answers": answers, "image": exchange.images})
    return turns


def markdown(exchanges: list[Exchange], title: str) -> str:
    """The conversation for reading elsewhere."""
    lines = [f"# {title}", "", time.strftime("%Y-%m-%d %H:%M"), ""]
    for exchange in exchanges:
        lines += [f"![picture](<{path}>)" for path in exchange.images]
        lines += ["", f"**Question:** {exchange.text}", ""]
        for answer in exchange.answers.values():
            notes = [f"{answer.seconds:.1f} s"] if answer.seconds is not None else []
            notes += ["stopped"] if answer.stopped else []
            notes += [f"temperature {exchange.temperature:g}"] if exchange.temperature else []
            about = f" ({', '.join(notes)})" if notes else ""
            lines += [f"**{answer.model}**{about}: {answer.text.strip() or EMPTY}", ""]
        if exchange.error:
            lines += [f"*error: {exchange.error}*", ""]
        lines += ["---", ""]
    return "\n".join(lines)


def save(exchanges: list[Exchange], title: str, folder: Path) -> Path:
    """Write the conversation as Markdown and return the path."""
    name = re.sub(r"[^\w-]+", "-", title).strip("-").lower() or "chat"
    path = (folder / f"{name}-{time.strftime('%H%M%S')}.md").resolve()
    with atomic_write(path) as stream:
        stream.write(markdown(exchanges, title))
    return path
