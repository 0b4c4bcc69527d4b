"""Teachers that are language models, and their recorded replies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kore.augment.call import Call
from kore.errors import DataError, ProviderError
from kore.llm.replay import ReplayFile
from kore.llm.request import Model, Reply, Request


class ModelTeacher:
    """Puts calls to a language model.

    Args:
        temperature: of every request.
    """

    cached = True

    def __init__(self, model: Model, temperature: float) -> None:
        self.model = model
        self.temperature = temperature

    @property
    def name(self) -> str:
        """The model's."""
        return self.model.name

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The model's, and the temperature."""
        return {"temperature": self.temperature, **self.model.parameters}

    async def reply(self, call: Call, repair: tuple[str, str] | None = None) -> Reply:
        """Send a call, with a bad reply and what is wrong with it where it is to be repaired."""
        messages = [{"role": "system", "content": call.system}, {"role": "user", "content": call.user}]
        if repair is not None:
            bad, trouble = repair
            again = f"That could not be read ({trouble}). Send the whole reply again as JSON."
            messages += [{"role": "assistant", "content": bad[:4000]}, {"role": "user", "content": again}]
        request = Request(
            tuple(messages), self.temperature, schema=(call.task, call.schema), expected=call.expected
        )
        return await self.model.reply(request)

    async def close(self) -> None:
        """Close the model's connections."""
        await self.model.close()


class ReplayTeacher:
    """Replies from a JSONL file of ``{"prompt": user text, "text": reply}`` or ``{"item", "task", "text"}``
    lines.

    The first form answers exactly that prompt; the second the task's calls about that item, with the first
    such line of the file.
    """

    cached = False

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise DataError("no such file of replies", where=str(path))
        self.path = path
        self._file = ReplayFile(path, "text", [("prompt",), ("item", "task")])

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
        item = call.items[0].id
        found = self._file.find(prompt=call.user)[-1:] or self._file.find(item=item, task=call.task)
        if not found:
            raise ProviderError(f"no recorded reply for {call.task} of item {item}", hint=f"in {self.path}")
        line = found[0]
        return Reply(line["text"], int(line.get("tokens_in", 0)), int(line.get("tokens_out", 0)))

    async def close(self) -> None:
        """Nothing to close."""
