"""kore check-server against a server that applies an adapter, and servers that go wrong in each way."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kore.artifacts.canaries import IMAGES, Answer, Canary, read_canaries, write_canaries
from kore.errors import DataError, MissingArtefact, ProviderError
from kore.workflows.check_server import check_server
from tests.cli.command import kore

Reply = tuple[str, str]  # text and finish_reason


def text_of(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


class Server:
    """Answers as a function of the last message's text, the order of its parts and the model's name."""

    def __init__(self, answer: Callable[[str, str], Reply], models: tuple[str, ...]) -> None:
        self.seen: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                self.send({"data": [{"id": model} for model in models]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.seen.append(body)
                content = body["messages"][-1]["content"]
                order = "system" if len(body["messages"]) > 1 else "plain"
                if isinstance(content, list) and content[0]["type"] == "text":
                    order = "text-first"
                text, finish = answer(text_of(content), order)
                self.send({"choices": [{"message": {"content": text}, "finish_reason": finish}]})

            def send(self, value: object) -> None:
                data = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@contextmanager
def serving(answer: Callable[[str, str], Reply], *models: str) -> Iterator[Server]:
    server = Server(answer, models or ("base", "knowledge"))
    thread = threading.Thread(target=server.server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.server.shutdown()
        thread.join()
        server.server.server_close()


def canary(number: int, differs: bool, order: str = "plain") -> Canary:
    parts: list[dict[str, Any]] = [
        {"type": "image", "image": f"{IMAGES}/0-0.png"},
        {"type": "text", "text": f"Q{number}"},
    ]
    if order == "text-first":
        parts.reverse()
    if number % 2 and order == "plain":
        parts = parts[1:]
    messages: list[dict[str, Any]] = [{"role": "user", "content": parts}]
    if order == "system":
        messages.insert(0, {"role": "system", "content": [{"type": "text", "text": "Be brief."}]})
    base = Answer(f"old {number}", (-0.1,), True)
    new = Answer(f"new {number}" if differs else base.text, (-0.1,), True)
    return Canary(str(number), order, tuple(messages), 24, base, new)  # type: ignore[arg-type]


CANARIES = [canary(n, n < 6) for n in range(10)] + [
    canary(10, True, "text-first"),
    canary(11, True, "system"),
]


@pytest.fixture
def export(tmp_path: Path) -> Path:
    (tmp_path / IMAGES).mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / IMAGES / "0-0.png")
    write_canaries(CANARIES, tmp_path)
    return tmp_path


def as_adapter(text: str, order: str) -> Reply:
    number = int(text.removeprefix("Q"))
    return CANARIES[number].adapter.text, "stop"


def as_base(text: str, order: str) -> Reply:
    return CANARIES[int(text.removeprefix("Q"))].base.text, "stop"


def half(text: str, order: str) -> Reply:
    return as_base(text, order) if int(text.removeprefix("Q")) % 2 else as_adapter(text, order)


def another(text: str, order: str) -> Reply:
    number = int(text.removeprefix("Q"))
    return (f"third {number}", "stop") if CANARIES[number].differs else as_base(text, order)


def garbled(text: str, order: str) -> Reply:
    return f"<|im_end|> {text}", "stop"


def plain_order_only(text: str, order: str) -> Reply:
    return as_adapter(text, order) if order == "plain" else ("USER?", "stop")


def cut(text: str, order: str) -> Reply:
    return as_adapter(text, order)[0][:2], "length"


def rounded(text: str, order: str) -> Reply:
    """As a server in half precision: one answer of many is another."""
    return ("otherwise", "stop") if text == "Q2" else as_adapter(text, order)


def spent(text: str, order: str) -> Reply:
    """As a server that thinks until its limit."""
    return "", "length"


def empty(text: str, order: str) -> Reply:
    return "", "stop"


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (as_adapter, "applied"),
        (rounded, "applied"),
        (as_base, "not applied"),
        (half, "partly"),
        (another, "wrong adapter"),
        (garbled, "template differs"),
        (empty, "template differs"),
        (plain_order_only, "template differs"),
        (cut, "cut"),
        (spent, "cut"),
    ],
)
def test_every_way_of_a_server_has_its_verdict(
    export: Path, answer: Callable[[str, str], Reply], verdict: str
) -> None:
    with serving(answer) as server:
        check = check_server(server.url, "knowledge", export)
    assert check.verdict == verdict
    assert len(check.answers) == len(CANARIES) and check.to_json()["meaning"]
    if answer is plain_order_only:
        assert "text-first, system" in check.detail


def test_the_server_gets_the_messages_with_their_images(export: Path) -> None:
    with serving(as_adapter) as server:
        check_server(server.url, "knowledge", export)
    sent = {text_of(body["messages"][-1]["content"]): body for body in server.seen}
    assert {body["model"] for body in server.seen} == {"knowledge"}
    assert all(body["temperature"] == 0 and body["max_tokens"] == 24 for body in server.seen)
    assert sent["Q1"]["messages"] == [{"role": "user", "content": "Q1"}]
    first, second = sent["Q0"]["messages"][0]["content"]
    assert first["image_url"]["url"].startswith("data:image/png;base64,") and second["text"] == "Q0"
    assert [part["type"] for part in sent["Q10"]["messages"][0]["content"]] == ["text", "image_url"]
    assert sent["Q11"]["messages"][0] == {"role": "system", "content": "Be brief."}


def test_what_cannot_be_judged_is_said_before_any_prompt(export: Path, tmp_path: Path) -> None:
    with serving(as_adapter, "base", "other") as server:
        with pytest.raises(MissingArtefact, match="no model knowledge") as caught:
            check_server(server.url, "knowledge", export)
        assert caught.value.hint == "it has: base, other" and not server.seen
        write_canaries([canary(9, False)], export)
        with pytest.raises(DataError, match="no canary tells base and adapter apart"):
            check_server(server.url, "other", export)
    with pytest.raises(ProviderError, match=r"cannot reach http://127\.0\.0\.1:9/v1"):
        write_canaries(CANARIES, export)
        check_server("http://127.0.0.1:9/v1", "knowledge", export)
    with pytest.raises(MissingArtefact, match="no canaries"):
        check_server("http://127.0.0.1:9/v1", "knowledge", tmp_path / "elsewhere")


def test_the_command_exits_with_0_only_where_the_adapter_is_applied(export: Path) -> None:
    with serving(as_adapter) as server:
        done = kore("check-server", server.url, "--adapter", "knowledge", "--export", export, "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["verdict"] == "applied", done.stderr
    with serving(as_base) as server:
        done = kore("check-server", server.url, "--adapter", "knowledge", "--export", export)
    assert done.returncode == 6 and "the answers are the base's" in done.stderr
    assert "--enable-lora" in done.stderr


def test_canaries_survive_the_file(export: Path) -> None:
    assert read_canaries(export) == CANARIES
