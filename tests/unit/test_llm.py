"""One client for teachers and judges: what servers refuse, withhold, or answer instead of a completion."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from kore.augment import grow
from kore.augment.call import make_call
from kore.augment.schemas import Summary
from kore.augment.teachers.model import ModelTeacher
from kore.config.schema import AugmentSection
from kore.data.records import KnowledgeItem
from kore.errors import ProviderError
from kore.evaluation.judge import JudgeRequest, make_judge
from kore.io.jsonl import read_log
from kore.llm.client import Client
from kore.llm.request import Busy, Hopeless, Lasting, NoReply, Refused, Reply, Request
from kore.llm.retry import Limits, Sender
from tests.augment_loopback import gadgets

SECRET = "sk-very-secret-0123456789"
Answer = tuple[int, dict[str, str], Any]
ASK = Request(({"role": "user", "content": "Which?"},), 0.5, 64, ("form", {"type": "object"}))


def said(content: Any, finish: str = "stop", **message: Any) -> Answer:
    """A completion."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content, **message},
        "finish_reason": finish,
    }
    return 200, {}, {"id": "1", "object": "chat.completion", "choices": [choice]}


def no(status: int, message: str, **headers: str) -> Answer:
    return status, headers, {"error": {"message": message}}


class Server(BaseHTTPRequestHandler):
    """Answers each request by a function of its body."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[dict[str, Any]]] = []
    connections: ClassVar[set[Any]] = set()
    answer: ClassVar[Callable[[dict[str, Any], int], Answer]]

    def log_message(self, format: str, *args: object) -> None:
        return

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        Server.asked.append(request)
        Server.connections.add(self.client_address)
        status, headers, body = Server.answer(request, len(Server.asked))
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    monkeypatch.setenv("KORE_CACHE", str(tmp_path / "kept"))
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setattr("kore.llm.retry.LONGEST_BACKOFF", 0.0)
    Server.asked.clear()
    Server.connections.clear()
    found = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    found.daemon_threads = True
    thread = threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{found.server_address[1]}/v1"
    found.shutdown()
    found.server_close()
    thread.join()


def answers(*given: Answer) -> None:
    """The server's answers in turn, the last one for all further requests."""
    Server.answer = staticmethod(lambda request, number: given[min(number, len(given)) - 1])


def reply(url: str, request: Request = ASK, **limits: Any) -> Reply:
    """Send one request through client and retries."""

    async def run() -> Reply:
        client = Client("m", base_url=url)
        sender = Sender(client.name, Limits(**{"retries": 2, **limits}))
        try:
            return await sender.send(lambda repair: client.reply(request), request.expected)
        finally:
            await client.close()

    return asyncio.run(run())


def once(url: str) -> Reply:
    async def run() -> Reply:
        client = Client("m", base_url=url)
        try:
            return await client.reply(ASK)
        finally:
            await client.close()

    return asyncio.run(run())


def test_parameters_that_the_server_refuses_are_left_out(server: str) -> None:
    def picky(request: dict[str, Any], number: int) -> Answer:
        for name in ("max_tokens", "max_completion_tokens", "temperature"):
            if name in request:
                return no(400, f"Unsupported parameter: '{name}' is not supported with this model.")
        if form := request.get("response_format"):
            return no(422, f"response_format of type {form['type']} is not supported")
        return said("fine")

    Server.answer = staticmethod(picky)
    assert reply(server).text == "fine"
    assert set(Server.asked[-1]) == {"model", "messages"} and len(Server.asked) == 6
    assert "max_completion_tokens" in Server.asked[1]
    assert 'schema: {"type":"object"}' in Server.asked[-1]["messages"][0]["content"]


def test_a_judge_is_asked_without_what_its_server_refuses(server: str, tmp_path: Path) -> None:
    def picky(request: dict[str, Any], number: int) -> Answer:
        refused = [name for name in ("temperature", "max_tokens") if name in request]
        return no(400, f"{refused[0]} is not supported") if refused else said("A")

    Server.answer = staticmethod(picky)
    replies = make_judge("openai:m", base_url=server, record=tmp_path).ask([_question()])
    assert dict(replies.readable) == {"s1": "A"} and "max_completion_tokens" in Server.asked[-1]


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (said(None), NoReply, "the reply is empty"),
        (said("  "), NoReply, "the reply is empty"),
        (said("", "length"), NoReply, "limit of tokens was spent"),
        (said("half", "content_filter"), NoReply, "content filter"),
        (said(None, refusal="I will not."), Refused, "I will not"),
        ((200, {"content-type": "text/html"}, b"<html><title>Welcome</title>"), Hopeless, "Welcome"),
        ((200, {}, {"error": {"message": "upstream is down"}}), Busy, "upstream is down"),
        ((200, {}, {"choices": []}), Busy, "without a completion"),
        (no(401, f"Incorrect key {SECRET}"), Hopeless, "Incorrect key"),
        (no(503, f"busy {SECRET}"), Busy, "HTTP 503"),
        (no(413, "too long"), Lasting, "too long"),
    ],
)
def test_what_is_no_usable_reply_has_its_own_error(
    server: str, answer: Answer, error: type[Exception], words: str
) -> None:
    answers(answer)
    with pytest.raises(error, match=words) as caught:
        once(server)
    assert SECRET not in str(caught.value)
    if answer[0] == 200 and "choices" not in (answer[2] if isinstance(answer[2], dict) else {"": 0}):
        assert "/v1" in str(getattr(caught.value, "hint", "")) and server in str(caught.value)


def test_a_page_under_status_200_ends_at_once_with_the_remedy(server: str) -> None:
    answers((200, {"content-type": "text/html"}, b"<!doctype html><title>Chat</title>" + b"x" * 9999))
    with pytest.raises(ProviderError) as caught:
        reply(server)
    assert len(Server.asked) == 1 and len(str(caught.value)) < 500
    assert "<!doctype html>" in str(caught.value) and "/v1" in str(caught.value.hint)


def test_content_in_parts_is_joined_and_a_cut_reply_says_so(server: str) -> None:
    answers(said([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "length"))
    found = once(server)
    assert (found.text, found.finish) == ("ab", "length")


def test_an_unreachable_server_is_named_with_its_address(server: str) -> None:
    with pytest.raises(ProviderError, match=r"cannot reach http://127\.0\.0\.1:9/v1: ") as caught:
        reply("http://user:word@127.0.0.1:9/v1", retries=1)
    assert "word" not in str(caught.value)


def test_the_wait_that_a_server_asks_for_is_capped(server: str) -> None:
    answers(no(429, "slow down", retry_after="3600"), said("fine"))
    began = time.monotonic()
    assert reply(server, longest_wait=0.2).text == "fine"
    assert 0.2 <= time.monotonic() - began < 5
    assert AugmentSection().longest_wait == 120.0


def _question(**more: Any) -> JudgeRequest:
    return JudgeRequest("s1", "Which?", lambda text: text in ("A", "B"), **more)


def test_a_judge_has_one_client_for_all_its_questions_and_closes_it(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Client] = []
    closed: list[Client] = []
    start, end = Client.__init__, Client.close

    def counted(self: Client, *args: Any, **more: Any) -> None:
        made.append(self)
        start(self, *args, **more)

    async def ended(self: Client) -> None:
        closed.append(self)
        await end(self)

    monkeypatch.setattr(Client, "__init__", counted)
    monkeypatch.setattr(Client, "close", ended)
    answers(*[said("hm")] * 25, said("A"))
    requests = [JudgeRequest(f"s{n}", f"Which {n}?", lambda text: text == "A") for n in range(20)]
    judge = make_judge("openai:m", base_url=server, record=tmp_path)
    assert len(judge.ask(requests).readable) == 20
    assert len(made) == len(closed) == 1 and made[0]._connection is None
    assert not [t for t in threading.enumerate() if t.name == "kore-io"]
    assert judge.ask(requests).counts()["failed"] == 0 and len(made) == 1, "all is on record"


@pytest.mark.parametrize("bad", [said(None), said("because A", "length"), said("A", "content_filter")])
def test_a_judges_reply_that_is_empty_cut_or_withheld_is_not_recorded(
    server: str, tmp_path: Path, bad: Answer
) -> None:
    answers(bad)
    judge = make_judge("openai:m", base_url=server, record=tmp_path)
    assert judge.ask([_question(tries=2)]).failed == {"s1"}
    assert [line for path in tmp_path.glob("*.jsonl") for line in read_log(path)] == []
    answers(said("A", "length"))
    assert dict(judge.ask([_question()]).readable) == {"s1": "A"}, "cut, but readable"


def test_judge_replies_recorded_before_stay_valid(server: str, tmp_path: Path) -> None:
    line = '{"key": "a5ef7c33a727893d", "sample": "s1", "attempt": 0, "reply": "B"}\n'
    judge = make_judge("openai:m", base_url=server, record=tmp_path)
    path = tmp_path / "7d687de7a58dc1b7.jsonl"
    path.write_text(line)
    assert dict(judge.ask([_question()]).readable) == {"s1": "B"} and not Server.asked


def test_the_cache_key_of_a_teachers_call_is_as_it_was(server: str) -> None:
    call = make_call("summary", Summary, gadgets(1)[0], 0)
    teacher = ModelTeacher(Client("m", base_url="http://x/v1/"), 0.7)
    assert call.key(teacher.name, teacher.parameters) == "150296c06bd959ce"


@pytest.mark.parametrize("bad", [said(None), said('{"summary": "ha', "length"), said("", "content_filter")])
def test_an_item_without_a_usable_reply_stays_unfinished(
    server: str, tmp_path: Path, picture: Path, bad: Answer
) -> None:
    items: list[KnowledgeItem] = gadgets(1, picture)
    section = AugmentSection(teacher="openai:m", base_url=server, retries=1)
    answers(bad)
    with pytest.raises(ProviderError, match=r"1 of 1 items failed.*the reply (is|was)") as caught:
        grow(items, section, tmp_path / "out")
    assert caught.value.exit_code == 5
    asked = len(Server.asked)
    with pytest.raises(ProviderError):
        grow(items, section, tmp_path / "out")
    assert len(Server.asked) > asked, "the same command tries again"


def test_a_reply_in_a_form_has_a_limit_of_tokens_that_grows_when_it_cuts() -> None:
    client = Client("m", base_url="http://127.0.0.1:9/v1")
    messages = ({"role": "system", "content": "Reply."}, {"role": "user", "content": "?"})
    form = Request(messages, schema=("facts", {"type": "object"}), expected=(20, 100))
    assert client._body(form)["max_tokens"] == 912
    assert "max_tokens" not in client._body(Request(messages))
    assert client._body(Request(messages, max_tokens=7, schema=form.schema))["max_tokens"] == 7
    cut = {"choices": [{"message": {"content": '{"a": '}, "finish_reason": "length"}]}
    assert client._read(cut, form).finish == "length"
    assert client._body(form)["max_tokens"] == 2 * 912
    for _ in range(9):
        client._read(cut, form)
    assert client._body(form)["max_tokens"] == 16 * 912
