"""Find out whether a server applies an exported adapter, by asking it the export's canaries."""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kore.artifacts.canaries import Canary, read_canaries
from kore.errors import DataError, MissingArtefact, ProviderError
from kore.llm.client import Client, api_key
from kore.llm.request import Busy, NoReply, Refused, Request, Truncated

Verdict = Literal["applied", "not applied", "partly", "wrong adapter", "template differs", "cut"]
Kind = Literal["adapter", "base", "other", "cut"]

IN_FLIGHT = 8
MOST = 0.8  # of the canaries: a server in bfloat16 may answer a few otherwise
_TIMEOUT = 120.0
MEANING: dict[Verdict, tuple[str, str]] = {
    "applied": ("the server applies the adapter", ""),
    "not applied": (
        "the answers are the base's: the server ignores the adapter",
        "load the adapter (vLLM: --enable-lora --lora-modules NAME=FOLDER) and send its name as the model",
    ),
    "partly": (
        "some answers are the adapter's, some the base's",
        "a part of the weights is missing: a rank above --max-lora-rank, skipped layers, or a projector that "
        "the server leaves out",
    ),
    "wrong adapter": (
        "prompts that both models answer alike are answered as expected, the others as neither does",
        "the server has loaded another adapter, or an older one, under this name",
    ),
    "template differs": (
        "most answers are neither model's",
        "compare the server's chat template and special tokens with the export's tokenizer files; switch "
        "thinking off; check that it serves the same base",
    ),
    "cut": ("the server cuts answers short", "raise the server's limits of tokens and of context"),
}


@dataclass(frozen=True)
class Checked:
    """One canary's answer by the server."""

    canary: Canary
    answer: str
    kind: Kind

    @property
    def right(self) -> bool:
        """Whether the answer is the adapter's."""
        return self.kind == "adapter"


@dataclass(frozen=True)
class ServerCheck:
    """The verdict on a server.

    Attributes:
        detail: what the verdict is drawn from, in one line.
    """

    verdict: Verdict
    detail: str
    answers: list[Checked]

    def to_json(self) -> dict[str, Any]:
        """A plain object."""
        meaning, remedy = MEANING[self.verdict]
        rows = [
            {
                "id": one.canary.id,
                "order": one.canary.order,
                "prompt": one.canary.text,
                "like": one.kind,
                "answer": one.answer,
                "adapter": one.canary.adapter.text,
                "base": one.canary.base.text,
            }
            for one in self.answers
        ]
        about = {"meaning": meaning, "remedy": remedy, "detail": self.detail}
        return {"verdict": self.verdict, **about, "answers": rows}


def check_server(url: str, name: str, folder: Path) -> ServerCheck:
    """Ask the server at `url` every canary of an export under the model name `name`.

    Raises:
        MissingArtefact: no canaries, or the server has no such model. DataError: the canaries do not tell
            base and adapter apart. ProviderError: the server cannot be reached or answers with an error.
    """
    canaries = read_canaries(folder)
    if not any(canary.differs for canary in canaries):
        raise DataError(
            "no canary tells base and adapter apart, so the server cannot be judged",
            where=str(folder),
            hint="export the run itself, whose data holds prompts that do: kore export RUN --restart",
        )
    names = models_of(url)
    if name not in names:
        raise MissingArtefact(
            f"the server at {url} has no model {name}", hint=f"it has: {', '.join(names) or 'none'}"
        )
    return judge(asyncio.run(_ask_all(url, name, canaries, folder)))


def models_of(url: str) -> list[str]:
    """Names of the models that a server offers.

    Raises:
        ProviderError: it cannot be reached, or does not answer as an OpenAI-compatible API.
    """
    request = urllib.request.Request(f"{url.rstrip('/')}/models")
    if key := api_key():
        request.add_header("Authorization", f"Bearer {key}")
    hint = "is it the address of an OpenAI-compatible API? It usually ends in /v1"
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            value = json.loads(answer.read(1 << 22))
        return [str(model["id"]) for model in value["data"]]
    except urllib.error.HTTPError as error:
        raise ProviderError(f"{url}: HTTP {error.code}", hint=hint) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ProviderError(f"cannot reach {url}: {reason}", hint=hint) from error
    except (KeyError, TypeError) as error:
        raise ProviderError(f"{url} does not list its models", hint=hint) from error


async def _ask_all(url: str, name: str, canaries: Sequence[Canary], folder: Path) -> list[Checked]:
    client = Client(name, base_url=url, timeout=_TIMEOUT)
    free = asyncio.Semaphore(IN_FLIGHT)

    async def one(canary: Canary) -> Checked:
        async with free:
            return await _ask(client, canary, folder)

    try:
        return list(await asyncio.gather(*(one(canary) for canary in canaries)))
    finally:
        await client.close()


async def _ask(client: Client, canary: Canary, folder: Path) -> Checked:
    messages = tuple({"role": m["role"], "content": _content(m["content"], folder)} for m in canary.messages)
    try:
        reply = await client.reply(Request(messages, temperature=0.0, max_tokens=canary.max_tokens))
    except Truncated:
        return Checked(canary, "", "cut" if canary.adapter.ended else _like(canary, ""))
    except (NoReply, Refused):
        return Checked(canary, "", _like(canary, ""))
    except Busy as error:
        raise ProviderError(str(error), hint=error.hint) from error
    text = reply.text.strip()
    kind = _like(canary, text)
    if kind == "other" and reply.finish == "length" and canary.adapter.ended:
        kind = "cut"
    return Checked(canary, text, kind)


def _like(canary: Canary, text: str) -> Kind:
    return "adapter" if text == canary.adapter.text else "base" if text == canary.base.text else "other"


def _content(parts: Sequence[dict[str, Any]], folder: Path) -> Any:
    """A message's content for the API: plain text, or parts with images as data URLs."""
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return [
        part
        if part["type"] == "text"
        else {"type": "image_url", "image_url": {"url": _data_url(folder, part)}}
        for part in parts
    ]


def _data_url(folder: Path, part: dict[str, Any]) -> str:
    return "data:image/png;base64," + base64.b64encode((folder / part["image"]).read_bytes()).decode()


def judge(answers: Sequence[Checked]) -> ServerCheck:
    """The verdict on a server's answers."""
    telling = [one for one in answers if one.canary.differs]
    same = [one for one in answers if not one.canary.differs]
    counts = {kind: sum(one.kind == kind for one in telling) for kind in ("adapter", "base", "other", "cut")}
    right = sum(one.right for one in answers)
    detail = f"{right} of {len(answers)} answers are the adapter's"
    odd = [one for one in answers if one.canary.order != "plain"]
    plain = [one for one in answers if one.canary.order == "plain"]

    def verdict() -> Verdict:
        if any(one.kind == "cut" for one in answers):
            return "cut"
        if odd and _most(plain) and not any(one.right for one in odd):
            return "template differs"
        if counts["adapter"] >= MOST * len(telling) and _most(same):
            return "applied"
        if counts["base"] >= MOST * len(telling):
            return "not applied"
        if counts["other"] > len(telling) / 2:
            return "wrong adapter" if same and _most(same) else "template differs"
        return "partly" if counts["adapter"] and counts["base"] else "template differs"

    found = verdict()
    if found == "template differs" and odd and _most(plain):
        orders = ", ".join(dict.fromkeys(one.canary.order for one in odd))
        detail += f"; none of the prompts with another order of parts ({orders})"
    return ServerCheck(found, detail, list(answers))


def _most(answers: Sequence[Checked]) -> bool:
    return sum(one.right for one in answers) >= MOST * len(answers)
