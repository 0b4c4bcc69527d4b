"""Recorded replies, for teaching again without a model and for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kore.augment.call import Call, Reply
from kore.errors import DataError, ProviderError
from kore.io.jsonl import read_jsonl


class ReplayTeacher:
    """Replies from a JSONL file of ``{"prompt": user text, "text": reply}`` or ``{"item", "task", "text"}``
    lines.

    The first form answers exactly that prompt; the second the task's calls about that item, with the first
    such
    line of the file.
    """

    cached = False

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise DataError("no such file of replies", where=str(path))
        self.path = path
        self._by_prompt: dict[str, Reply] = {}
        self._by_task: dict[tuple[str, str], Reply] = {}
        for where, line in read_jsonl(path):
            text = line.get("text")
            if not isinstance(text, str):
                raise DataError("a reply without text", where=where)
            reply = Reply(text, int(line.get("tokens_in", 0)), int(line.get("tokens_out", 0)))
            if "prompt" in line:
                self._by_prompt[str(line["prompt"])] = reply
            elif "item" in line and "task" in line:
                self._by_task.setdefault((str(line["item"]), str(line["task"])), reply)
            else:
                raise DataError("a reply needs prompt, or item and task", where=where)

    @property
    def name(self) -> str:
        """``replay:FILE`` by the file's name alone."""
        return f"replay:{self.path.name}"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """None."""
        return {}

    async def reply(self, call: Call, repair: tuple[str, str] | None = None) -> Reply:
        """The recorded reply.

        Raises:
            ProviderError: there is none for this call.
        """
        found = self._by_prompt.get(call.user) or self._by_task.get((call.items[0].id, call.task))
        if found is None:
            raise ProviderError(
                f"no recorded reply for {call.task} of item {call.items[0].id}", hint=f"in {self.path}"
            )
        return found

    async def close(self) -> None:
        """Nothing to give back."""
