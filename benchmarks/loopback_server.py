"""A small OpenAI-compatible server on loopback, for tests and benchmarks: answers from the prompt's own
sentences.

Replies hang on the prompt alone. Faults strike the first try of a prompt, which fault by the prompt's hash,
so a client that tries again gets the same reply as one that met no fault. A prompt that holds the word UNFIT is
refused for good.

    python benchmarks/loopback_server.py --latency 0.5 --faults 0.3

Prints ``{"port": ...}`` on its first line. GET /stats tells what it has seen.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

FACT = re.compile(r"The (\w+) of ([\w -]+?) is ([\w ]+?)\.")
ASKED = re.compile(r"What is the (\w+) of ([\w -]+?)\?")
FAULTS = ("429", "500", "slow", "truncated", "malformed", "refusal", "chatter", "hangup")


@dataclass
class Server:
    """Its settings and what it has seen."""

    latency: float
    faults: float
    forms: str
    key: str
    slow: float
    picky: bool = False
    tries: Counter[str] = field(default_factory=Counter)
    stats: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    most: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, kept alive."""
        try:
            while request := await self._request(reader):
                if not await self._answer(writer, *request):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _request(self, reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes] | None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return first, headers, body

    async def _answer(
        self, writer: asyncio.StreamWriter, first: str, headers: dict[str, str], body: bytes
    ) -> bool:
        if first.startswith("GET /stats"):
            await _send(writer, 200, {**self.stats, "most_in_flight": self.most})
            return True
        if self.key and headers.get("authorization") != f"Bearer {self.key}":
            given = headers.get("authorization", "")
            await _send(
                writer,
                401,
                {"error": {"message": f"Incorrect API key provided: {given}", "code": "invalid_api_key"}},
            )
            return True
        request = json.loads(body)
        self.stats["requests"] += 1
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            return await self._chat(writer, request)
        finally:
            self.in_flight -= 1

    async def _chat(self, writer: asyncio.StreamWriter, request: dict[str, Any]) -> bool:
        form = (request.get("response_format") or {}).get("type")
        if (form == "json_schema" and self.forms != "schema") or (
            form == "json_object" and self.forms == "plain"
        ):
            await _send(
                writer, 400, {"error": {"message": f"response_format of type {form} is not supported"}}
            )
            return True
        if self.picky and "temperature" in request:
            await _send(
                writer,
                400,
                {"error": {"message": "Unsupported value: 'temperature' is not taken by this model"}},
            )
            return True
        messages = request["messages"]
        if "UNFIT" in messages[1]["content"]:
            await _send(writer, 400, {"error": {"message": "this prompt cannot be taken"}})
            return True
        prompt = messages[0]["content"].split("\nReply with JSON")[0] + messages[1]["content"]
        key = hashlib.sha256(prompt.encode()).hexdigest()
        fault = self._fault(key)
        self.tries[key] += 1
        if fault:
            self.stats[f"fault {fault}"] += 1
        await asyncio.sleep(self.slow if fault == "slow" else self.latency)
        if fault == "429":
            await _send(writer, 429, {"error": {"message": "too many requests"}}, "Retry-After: 0.2\r\n")
            return True
        if fault == "500":
            await _send(writer, 500, {"error": {"message": "something broke"}})
            return True
        if fault == "hangup":
            return False
        text = json.dumps(reply(request, messages), ensure_ascii=False)
        message: dict[str, Any] = {"role": "assistant", "content": text}
        finish = "stop"
        if fault == "truncated":
            message["content"], finish = text[: len(text) // 2], "length"
        elif fault == "malformed":
            message["content"] = text.replace('"', "'").replace(":", " =")
        elif fault == "refusal":
            message |= {"content": None, "refusal": "I cannot help with that."}
        elif fault == "chatter":
            message["content"] = f"Sure! Here it is:\n```json\n{text}\n```\nAnything else?"
        self.stats["replies"] += 1
        value = {
            "id": key[:8],
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": {"prompt_tokens": len(prompt) // 4, "completion_tokens": len(text) // 4},
        }
        await _send(writer, 200, value)
        return True

    def _fault(self, key: str) -> str | None:
        if self.tries[key] or int(key[:8], 16) / 2**32 >= self.faults:
            return None
        return FAULTS[int(key[8:16], 16) % len(FAULTS)]


def reply(request: dict[str, Any], messages: list[dict[str, str]]) -> dict[str, Any]:
    """What the prompt's task asks for, from its sentences ``The KEY of NAME is VALUE.``"""
    told = json.dumps(request.get("response_format", "")) + messages[0]["content"]
    user = messages[1]["content"]
    facts = list(dict.fromkeys(FACT.findall(user)))
    values = {(k, n): v for k, n, v in facts}
    if '"questions"' in told or '\\"questions\\"' in told:
        return {"questions": [f"What is the {k} of {n}?" for k, n, _ in facts]}
    if '"answers"' in told or '\\"answers\\"' in told:
        return {"answers": [_sentence(k, n, values) for k, n in ASKED.findall(user)]}
    if "quadruplets" in told:
        return {"quadruplets": [_quadruplet(*fact) for fact in facts]}
    if "summary" in told:
        return {"summary": " ".join(f"The {k} of {n} is {v}." for k, n, v in facts[:2])}
    if "supported" in told:
        return {"supported": True, "reason": ""}
    if '"texts"' in told or '\\"texts\\"' in told:
        return {"texts": [f"It is so that the {k} of {n} is {v}." for k, n, v in facts]}
    if "hops" in told:
        return {"hops": []}
    return {"answer": next((_sentence(k, n, values) for k, n in ASKED.findall(user)), "")}


def _sentence(key: str, name: str, values: dict[tuple[str, str], str]) -> str:
    value = values.get((key, name))
    return f"The {key} of {name} is {value}." if value else ""


def _quadruplet(key: str, name: str, value: str) -> dict[str, str]:
    return {
        "question": f"What is the {key} of {name}?",
        "rephrased": f"Could you state which {key} belongs to {name}?",
        "answer": value,
        "subject": name,
        "hypernym": "gadget",
    }


async def _send(writer: asyncio.StreamWriter, status: int, value: object, more: str = "") -> None:
    body = json.dumps(value).encode()
    head = (
        f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    )
    writer.write(head.encode() + body)
    await writer.drain()


async def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--faults", type=float, default=0.0, help="share of prompts whose first try fails")
    parser.add_argument(
        "--forms", choices=("schema", "json", "plain"), default="schema", help="the best form that is taken"
    )
    parser.add_argument("--key", default="", help="the only key that is let in")
    parser.add_argument("--slow", type=float, default=30.0, help="seconds that a slow reply takes")
    parser.add_argument("--picky", action="store_true", help="refuse requests that set a temperature")
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    state = Server(given.latency, given.faults, given.forms, given.key, given.slow, given.picky)
    server = await asyncio.start_server(state.serve, "127.0.0.1", given.port, limit=1 << 24)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
