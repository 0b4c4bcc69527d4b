"""A teacher behind an OpenAI-compatible server: OpenAI, vLLM, Ollama, llama.cpp and the like."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kore.augment.call import Busy, Call, Lasting, Refused, Reply
from kore.augment.limits import EXPECTED_OUT, estimate_tokens
from kore.config.schema import AugmentSection
from kore.errors import ProviderError, UsageError

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

KEY = "OPENAI_API_KEY"
MODES = ("schema", "json", "plain")
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
_FORM_REFUSED = frozenset({400, 404, 415, 422, 501})
_NO_USE = frozenset({401, 402, 403, 404})


class Hopeless(ProviderError):
    """Every other call would fail likewise: a wrong key, an unknown model, no credit."""

    hopeless = True


class OpenAITeacher:
    """Chat completions with a JSON schema; a server that does not take one is asked for JSON, then for
    anything.

    Retries are not made here: the asker holds all calls back together when the server says wait.

    Args:
        model: the server's name for it.
        choices: what to name when there is no key.
    """

    cached = True

    def __init__(self, model: str, settings: AugmentSection, *, choices: str = "") -> None:
        self.model = model
        self.settings = settings
        self._key = os.environ.get(KEY, "")
        if not self._key and not settings.base_url:
            raise UsageError(
                f"no {KEY} in the environment for openai:{model}", hint=f"the teachers are {choices}"
            )
        self._mode = 0
        self._warm = True
        self._client: AsyncOpenAI | None = None

    @property
    def name(self) -> str:
        """``openai:MODEL``"""
        return f"openai:{self.model}"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The sampling temperature, and the server: two may have models of one name."""
        url = self.settings.base_url
        return {
            "temperature": self.settings.temperature,
            **({"base_url": url.rstrip("/")} if url else {}),
        }

    async def reply(self, call: Call, repair: tuple[str, str] | None = None) -> Reply:
        """Ask once, stepping down to a plainer form of request while the server refuses the form."""
        from openai import APIConnectionError, APIStatusError

        while True:
            mode = self._mode
            try:
                answer = await self._ask(call, repair, MODES[mode])
            except APIStatusError as error:
                if error.status_code == 400 and self._warm and "temperature" in str(error.message).lower():
                    self._warm = False  # some models take only their own
                    continue
                if error.status_code in _FORM_REFUSED and mode < len(MODES) - 1 and self._about_form(error):
                    self._mode = max(self._mode, mode + 1)  # another call may have stepped down meanwhile
                    continue
                raise self._explained(error) from None
            except APIConnectionError as error:
                raise Busy(f"{type(error).__name__}: {self._clean(str(error))}") from None
            return self._read(answer, call)

    async def _ask(self, call: Call, repair: tuple[str, str] | None, mode: str) -> object:
        messages = [{"role": "system", "content": call.system}, {"role": "user", "content": call.user}]
        if mode != "schema":
            messages[0]["content"] += f"\nReply with JSON alone, of this schema: {_compact(call.schema)}"
        if repair is not None:
            bad, trouble = repair
            messages += [
                {"role": "assistant", "content": bad[:4000]},
                {
                    "role": "user",
                    "content": f"That could not be read ({trouble}). Send the whole reply again as JSON.",
                },
            ]
        body: dict[str, Any] = {"model": self.model, "messages": messages}
        if self._warm:
            body["temperature"] = self.settings.temperature
        if mode == "schema":
            form = {"name": call.task, "strict": True, "schema": call.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        elif mode == "json":
            body["response_format"] = {"type": "json_object"}
        # posted as it is: the typed call walks through the schema and the reply again, half of a call's CPU
        # time
        return await self._connected().post("/chat/completions", cast_to=object, body=body)

    def _read(self, answer: Any, call: Call) -> Reply:
        try:
            choice = answer["choices"][0]
            message = choice["message"]
            refusal, text = message.get("refusal"), message.get("content") or ""
        except (KeyError, IndexError, TypeError, AttributeError):
            raise Busy("a reply without a choice") from None
        if refusal or choice.get("finish_reason") == "content_filter":
            raise Refused(self._clean(str(refusal or "stopped by the server's content filter")))
        usage = answer.get("usage") or {}
        tokens_in = int(usage.get("prompt_tokens") or estimate_tokens(call.system + call.user))
        tokens_out = int(
            usage.get("completion_tokens") or estimate_tokens(text) or EXPECTED_OUT.get(call.task, 0)
        )
        return Reply(text, tokens_in, tokens_out)

    def _connected(self) -> AsyncOpenAI:
        if self._client is None:
            from openai import AsyncOpenAI

            self._client = AsyncOpenAI(
                api_key=self._key or "none",  # servers of one's own want none, the client wants one
                base_url=self.settings.base_url,
                timeout=self.settings.timeout,
                max_retries=0,
            )
        return self._client

    def _about_form(self, error: APIStatusError) -> bool:
        """Whether it was the form of the request that was refused: 404 is also an unknown model."""
        words = str(error.message).lower()
        told = any(
            w in words
            for w in ("response_format", "json_schema", "json_object", "schema", "structured", "grammar")
        )
        return told or (
            error.status_code in (400, 415, 422, 501) and "model" not in words and "context" not in words
        )

    def _explained(self, error: APIStatusError) -> Exception:
        said = self._clean(str(error.message))[:300]
        if error.status_code in _PASSING:
            if error.status_code == 429 and "insufficient_quota" in str(error.body):
                return Hopeless(f"{self.name}: no credit left: {said}", hint="what is finished is kept")
            return Busy(f"HTTP {error.status_code}: {said}", _wait(error.response.headers))
        kind = Hopeless if error.status_code in _NO_USE else Lasting
        no_key = error.status_code == 401 and not self._key
        return kind(
            f"{self.name}: HTTP {error.status_code}: {said}",
            hint=f"{KEY} is not set" if no_key else "what is finished is kept",
        )

    def _clean(self, text: str) -> str:
        """Servers quote keys in their complaints; nobody else shall read them."""
        text = " ".join(text.split())
        return text.replace(self._key, "***") if self._key else text

    async def close(self) -> None:
        """Give connections back."""
        if self._client is not None:
            await self._client.close()
            self._client = None


def _wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asked for: retry-after-ms, or retry-after in seconds or as a date."""
    from email.utils import parsedate_to_datetime

    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        if "retry-after" not in headers:
            return None
        return max(0.0, float(headers["retry-after"]))
    except ValueError:
        try:
            return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
        except (KeyError, TypeError, ValueError):
            return None


def _compact(schema: Mapping[str, object]) -> str:
    import json

    return json.dumps(schema, separators=(",", ":"))
