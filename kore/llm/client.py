"""The client of OpenAI-compatible servers: OpenAI, vLLM, Ollama, llama.cpp and the like."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any

from kore.io.http import retry_after
from kore.llm.request import Busy, Hopeless, Lasting, NoReply, Refused, Reply, Request, Truncated

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

_LOG = logging.getLogger("kore.llm")
LEAST_TOKENS = 512  # of a reply in a form, beside four times its expected length
MOST_ROOM = 16  # times this limit, doubled whenever a reply is cut off
SLOW = 2.0  # seconds until it is reported which server is waited for
KEY = "OPENAI_API_KEY"
MODES = ("schema", "json", "plain")
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
_REQUEST_REFUSED = frozenset({400, 404, 415, 422, 501})
_NO_USE = frozenset({401, 402, 403, 404})
_KEPT = "what is finished is kept"
_ADDRESS = "is it the address of an OpenAI-compatible API? It usually ends in /v1"
_QUOTED = 300  # characters of a server's words that an error shows


def api_key() -> str:
    """The key from the environment; empty where there is none."""
    return os.environ.get(KEY, "")


class Client:
    """Chat completions of one model on one server.

    A reply in a form has a limit of tokens, so that a model that repeats itself comes to an end. A parameter
    that the server refuses (``response_format``, ``temperature``, ``max_tokens``) is left out
    from then on. Retries are not made here, see `kore.llm.retry`: all requests wait together when the server
    says so.

    Args:
        model: the server's name for it.
        base_url: the server; default: OpenAI's own.
    """

    def __init__(self, model: str, *, base_url: str | None = None, timeout: float = 60.0) -> None:
        self.model = model
        self.base_url = base_url
        self.timeout = timeout
        self._key = api_key()
        self._mode = 0
        self._takes_temperature = True
        self._limits = ["max_tokens", "max_completion_tokens"]  # names of the limit yet to be refused
        self._connection: AsyncOpenAI | None = None
        self._room = 1
        self._noted: set[str] = set()

    @property
    def name(self) -> str:
        """``openai:MODEL``"""
        return f"openai:{self.model}"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The server: two may have models of one name."""
        return {"base_url": self.base_url.rstrip("/")} if self.base_url else {}

    async def reply(self, request: Request) -> Reply:
        """Send a request, without each parameter that the server refuses."""
        from openai import APIConnectionError, APIStatusError

        while True:
            body = self._body(request)
            try:
                # posted untyped: the typed call walks through the schema and the reply again, which is half
                # of a call's CPU time
                answer = await self._noticed(
                    self._connected().post("/chat/completions", cast_to=object, body=body)
                )
            except APIStatusError as error:
                if self._left_out(error, body):
                    continue
                raise self._explained(error) from None
            except APIConnectionError as error:
                cause = error.__cause__ or error
                said = self._clean(f"{type(cause).__name__}: {cause}".rstrip(": "))
                self._note("down", f"cannot reach {self._address}: {said}; trying again")
                raise Busy(f"cannot reach {self._address}: {said}") from None
            return self._read(answer, request)

    async def _noticed(self, answer: Awaitable[Any]) -> Any:
        """Await an answer; if the first one takes long, report which server is waited for."""
        handle = asyncio.get_running_loop().call_later(
            SLOW, self._note, "slow", f"waiting for {self.model} at {self._address}"
        )
        try:
            answered = await answer
        finally:
            handle.cancel()
        self._noted = {"slow"}  # the server is there; a new outage is reported again
        return answered

    def _note(self, kind: str, text: str) -> None:
        """Report something about the server, once."""
        if kind not in self._noted:
            self._noted.add(kind)
            _LOG.warning("%s", text)

    def _body(self, request: Request) -> dict[str, Any]:
        mode = MODES[self._mode]
        body: dict[str, Any] = {"model": self.model, "messages": list(request.messages)}
        if request.temperature is not None and self._takes_temperature:
            body["temperature"] = request.temperature
        limit = request.max_tokens
        if limit is None and request.schema is not None:
            limit = self._room * (LEAST_TOKENS + 4 * request.expected[1])
        if limit is not None and self._limits:
            body[self._limits[0]] = limit
        if request.schema is not None:
            name, schema = request.schema
            if mode == "schema":
                form = {"name": name, "strict": True, "schema": schema}
                body["response_format"] = {"type": "json_schema", "json_schema": form}
            else:
                body["messages"] = request.with_schema_in_words()
                if mode == "json":
                    body["response_format"] = {"type": "json_object"}
        return body

    def _left_out(self, error: APIStatusError, body: dict[str, Any]) -> bool:
        """Whether the server refused a parameter of `body`, which later requests then do without."""
        words = str(error.message).lower()
        if error.status_code not in _REQUEST_REFUSED:
            return False
        for name in ("max_tokens", "max_completion_tokens"):
            if name in body and name in words and "context" not in words:
                self._limits = [n for n in self._limits if n != name]
                return True
        if "temperature" in body and "temperature" in words:
            self._takes_temperature = False  # some models take only their own
            return True
        form = body.get("response_format")
        if form is not None and _about_form(error.status_code, words):
            refused = 0 if form["type"] == "json_schema" else 1
            self._mode = max(self._mode, refused + 1)  # another request may have stepped down meanwhile
            return True
        return False

    def _read(self, answer: Any, request: Request) -> Reply:
        if not isinstance(answer, dict):
            quoted = self._clean(str(answer))[:_QUOTED]
            raise Hopeless(f"{self._address} answered with something else than JSON: {quoted}", hint=_ADDRESS)
        try:
            choice = answer["choices"][0]
            message, finish = choice["message"], choice.get("finish_reason")
            refusal, text = message.get("refusal"), _text(message.get("content"))
        except (KeyError, IndexError, TypeError, AttributeError):
            quoted = self._clean(str(answer.get("error") or answer))[:_QUOTED]
            raise Busy(f"{self._address} answered without a completion: {quoted}", hint=_ADDRESS) from None
        if finish == "length":
            self._room = min(MOST_ROOM, 2 * self._room)  # models that reason first need more
        if refusal:
            raise Refused(self._clean(str(refusal)) or "it gave no reason")
        if finish == "content_filter":
            raise NoReply("the reply was withheld by the server's content filter")
        if not text.strip():
            if finish == "length":
                raise Truncated("the reply is empty: its limit of tokens was spent before")
            raise NoReply("the reply is empty")
        tokens_in = _count(answer.get("usage"), "prompt_tokens") or request.expected[0]
        tokens_out = _count(answer.get("usage"), "completion_tokens") or max(1, len(text) // 4)
        return Reply(text, tokens_in, tokens_out, "length" if finish == "length" else "stop")

    def _connected(self) -> AsyncOpenAI:
        if self._connection is None:
            from openai import AsyncOpenAI

            self._connection = AsyncOpenAI(
                api_key=self._key or "none",  # servers of one's own want none, the library wants one
                base_url=self.base_url,
                timeout=self.timeout,
                max_retries=0,
            )
        return self._connection

    @property
    def _address(self) -> str:
        url = self._connected().base_url
        return self._clean(f"{url.scheme}://{url.netloc.decode().rpartition('@')[2]}{url.path}".rstrip("/"))

    def _explained(self, error: APIStatusError) -> Exception:
        said = self._clean(str(error.message))[:_QUOTED]
        if error.status_code in _PASSING:
            if error.status_code == 429 and "insufficient_quota" in str(error.body):
                return Hopeless(f"{self.name}: no credit left: {said}", hint=_KEPT)
            return Busy(
                f"{self._address}: HTTP {error.status_code}: {said}", retry_after(error.response.headers)
            )
        kind = Hopeless if error.status_code in _NO_USE else Lasting
        no_key = error.status_code == 401 and not self._key
        return kind(
            f"{self.name}: HTTP {error.status_code}: {said}", hint=f"{KEY} is not set" if no_key else _KEPT
        )

    def _clean(self, text: str) -> str:
        """Servers quote keys in their complaints; nobody else may read them."""
        text = " ".join(text.split())
        return text.replace(self._key, "***") if self._key else text

    async def close(self) -> None:
        """Close connections."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None


def _about_form(status: int, words: str) -> bool:
    """Whether it was the form of the reply that was refused: 404 is also an unknown model."""
    named = ("response_format", "json_schema", "json_object", "schema", "structured", "grammar")
    return any(word in words for word in named) or (
        status != 404 and "model" not in words and "context" not in words
    )


def _count(usage: Any, name: str) -> int:
    """A number of tokens that a server reports; 0 where it reports none."""
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and 0 < value < 1 << 31 else 0


def _text(content: Any) -> str:
    """A message's content, which may come as a list of parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
