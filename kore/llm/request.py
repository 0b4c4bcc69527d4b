"""A request to a language model, its reply, and the ways in which there is none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from kore.errors import ProviderError

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    """One chat completion.

    Attributes:
        messages: roles and contents as the OpenAI API takes them; a system message stands first.
        schema: name and JSON schema that the reply must follow.
        expected: tokens in and out, roughly, where the model does not report them.
    """

    messages: tuple[Message, ...]
    temperature: float | None = None
    max_tokens: int | None = None
    schema: tuple[str, Mapping[str, object]] | None = None
    expected: tuple[int, int] = (0, 200)

    def with_schema_in_words(self) -> list[dict[str, Any]]:
        """The messages with the schema in the system message, for a model that takes no other form."""
        messages = [dict(message) for message in self.messages]
        if self.schema is not None:
            text = json.dumps(self.schema[1], separators=(",", ":"))
            messages[0]["content"] += f"\nReply with JSON alone, of this schema: {text}"
        return messages


@dataclass(frozen=True)
class Reply:
    """What a model sent back.

    Attributes:
        finish: ``length`` if the reply was cut off by a limit of tokens.
    """

    text: str
    tokens_in: int = 0
    tokens_out: int = 0
    finish: Literal["stop", "length"] = "stop"


class Model(Protocol):
    """Anything that answers requests. ``name`` and ``parameters`` enter the cache key of a reply."""

    @property
    def name(self) -> str:
        """For example ``openai:gpt-4o``."""
        ...

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Everything beside the request that shapes a reply."""
        ...

    async def reply(self, request: Request) -> Reply:
        """Answer one request.

        Raises:
            Busy: try again later. Refused: the model declined. NoReply: nothing usable came back.
            ProviderError: trying again is of no use.
        """
        ...

    async def close(self) -> None:
        """Close connections."""
        ...


class Lasting(ProviderError):
    """This request will not do better: the server cannot take it, or nothing usable comes back.

    It is not recorded as done; with ``keep_going`` its item is left out.
    """


class Hopeless(ProviderError):
    """Every other request would fail likewise: a wrong key, an unknown model, no credit, a wrong address."""


class Refused(Exception):
    """The model declined to answer."""


class NoReply(Exception):
    """The reply is empty, cut off, or withheld by a content filter."""


class Truncated(NoReply):
    """The limit of tokens was spent before any text came."""


class Unusable(Exception):
    """The reply could not be read as the form that was asked for."""


class Busy(Exception):
    """The server cannot answer now; `wait` is what it asked for in seconds, None if it did not say."""

    def __init__(self, message: str, wait: float | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.wait = wait
        self.hint = hint
