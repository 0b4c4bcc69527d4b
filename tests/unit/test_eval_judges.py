"""Judges: asked again where they cannot be read, recorded, replayed, counted; never a silent guess."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from kore.data.task import TaskImage
from kore.errors import DataError, MissingArtefact, ProviderError, UsageError
from kore.evaluation.judge import JudgeRequest, RecordedJudge, make_judge
from kore.evaluation.judge_prompts import FIELDS, load_prompts
from kore.evaluation.suite_options import SuiteOptions
from kore.evaluation.suites import resolve_suites
from kore.io.jsonl import read_log
from tests.tsv import write_all

PNG = b"\x89PNG" + b"x" * 20


class Server(BaseHTTPRequestHandler):
    """An OpenAI-compatible server that says what it is told to."""

    replies: ClassVar[list[str | int]] = []
    asked: ClassVar[list[dict[str, Any]]] = []

    def log_message(self, format: str, *args: object) -> None:
        return

    def do_POST(self) -> None:
        Server.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        reply = Server.replies[min(len(Server.asked), len(Server.replies)) - 1]
        status = reply if isinstance(reply, int) else 200
        message = {"role": "assistant", "content": reply}
        body = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }
        data = json.dumps(body if status == 200 else {"error": {"message": "no"}}).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server() -> Iterator[str]:
    Server.asked.clear()
    found = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{found.server_address[1]}/v1"
    found.shutdown()
    found.server_close()
    thread.join()


def _request(key: str = "s1", **more: Any) -> JudgeRequest:
    return JudgeRequest(key, "Which?", lambda reply: reply in ("A", "B"), **more)


def test_an_unreadable_reply_is_asked_again_hotter_and_the_readable_one_counts(
    server: str, tmp_path: Path
) -> None:
    Server.replies[:] = ["hm", "well", "B"]
    judge = make_judge("openai:m", base_url=server, record=tmp_path)
    replies = judge.ask([_request()])
    assert dict(replies.readable) == {"s1": "B"}
    assert replies.counts() == {"asked": 1, "failed": 0, "unparsed": 0}
    assert [a["temperature"] for a in Server.asked] == [0.0, 0.5, 1.0]


def test_replies_are_kept_and_never_asked_twice(server: str, tmp_path: Path) -> None:
    Server.replies[:] = ["hm", "A"]
    make_judge("openai:m", base_url=server, record=tmp_path).ask([_request()])
    asked = len(Server.asked)
    again = make_judge("openai:m", base_url=server, record=tmp_path).ask([_request()])
    assert dict(again.readable) == {"s1": "A"} and len(Server.asked) == asked == 2


def _many(count: int) -> list[JudgeRequest]:
    return [JudgeRequest(f"s{n}", f"Which {n}?", lambda reply: True) for n in range(count)]


def test_a_reply_is_on_record_before_the_next_one_comes(tmp_path: Path) -> None:
    def speak(requests: Sequence[JudgeRequest], temperature: float) -> Iterator[tuple[JudgeRequest, str]]:
        yield requests[2], "C"
        yield requests[0], "A"
        raise KeyboardInterrupt

    judge = RecordedJudge("j", load_prompts(), tmp_path / "r.jsonl", speak)
    with pytest.raises(KeyboardInterrupt):
        judge.ask(_many(4))
    assert [(line["sample"], line["reply"]) for line in read_log(tmp_path / "r.jsonl")] == [
        ("s2", "C"),
        ("s0", "A"),
    ]


def test_a_server_that_fails_in_the_middle_costs_no_reply_that_came(server: str, tmp_path: Path) -> None:
    Server.replies[:] = [*["A"] * 20, 401]
    with pytest.raises(ProviderError):
        make_judge("openai:m", base_url=server, record=tmp_path).ask(_many(40))
    kept = len(read_log(next(tmp_path.glob("*.jsonl"))))
    assert 12 <= kept <= 20
    Server.asked.clear()
    Server.replies[:] = ["A"]
    replies = make_judge("openai:m", base_url=server, record=tmp_path).ask(_many(40))
    assert len(replies.readable) == 40 and len(Server.asked) == 40 - kept


def test_what_stays_unreadable_or_is_refused_is_counted_not_guessed(server: str, tmp_path: Path) -> None:
    Server.replies[:] = ["hm"]
    judge = make_judge("openai:m", base_url=server, record=tmp_path)
    assert judge.ask([_request(tries=2)]).counts() == {"asked": 1, "failed": 0, "unparsed": 1}
    Server.asked.clear()
    Server.replies[:] = [400]
    refused = judge.ask([_request("s2", images=(TaskImage("x", PNG),))])
    assert refused.failed == {"s2"} and refused.counts() == {"asked": 1, "failed": 1, "unparsed": 0}
    content = Server.asked[0]["messages"][0]["content"]
    assert content[1]["image_url"]["url"].startswith("data:image/png;base64,")


def test_a_server_that_is_not_there_is_a_provider_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kore.llm.retry.LONGEST_BACKOFF", 0.0)
    judge = make_judge("openai:m", base_url="http://127.0.0.1:9/v1", record=tmp_path)
    with pytest.raises(ProviderError) as caught:
        judge.ask([_request()])
    assert caught.value.exit_code == 5
    assert "cannot reach http://127.0.0.1:9/v1: " in caught.value.message


def test_without_a_key_or_server_the_judge_says_so(tmp_path: Path) -> None:
    with pytest.raises(MissingArtefact, match="OPENAI_API_KEY"):
        make_judge("openai:m", record=tmp_path).ask([_request()])
    with pytest.raises(UsageError, match="unknown judge"):
        make_judge("gpt-4o")
    with pytest.raises(MissingArtefact, match="no such replies"):
        make_judge("replay:/nowhere")


def test_recorded_replies_judge_again_without_a_server(server: str, tmp_path: Path) -> None:
    Server.replies[:] = ["hm", "A"]
    make_judge("openai:m", base_url=server, record=tmp_path).ask([_request()])
    recorded = next(tmp_path.glob("*.jsonl"))
    asked = len(Server.asked)
    unknown = JudgeRequest("s2", "Another?", lambda reply: True)
    replies = make_judge(f"replay:{recorded}").ask([_request(), unknown])
    assert dict(replies.readable) == {"s1": "A"} and replies.failed == {"s2"} and len(Server.asked) == asked


def test_replies_written_by_hand_answer_their_sample(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"sample": "s1", "reply": "B"}\n')
    assert dict(make_judge(f"replay:{path}").ask([_request()]).readable) == {"s1": "B"}
    path.write_text('{"sample": "s1"}\n')
    with pytest.raises(DataError, match="a recorded reply has"):
        make_judge(f"replay:{path}")


def test_a_local_model_judges_through_the_engine(tiny_llava: Path, tmp_path: Path) -> None:
    judge = make_judge(f"hf:{tiny_llava}", record=tmp_path)
    judge.open()
    replies = judge.ask([JudgeRequest("s1", "Which?", lambda reply: True, max_tokens=4)])
    assert set(replies.last) == {"s1"}


def test_judge_prompts_can_be_replaced_and_their_hash_changes(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text('yes_no = "Q {question} A {prediction} ?"\n')
    own, other = load_prompts(), load_prompts(path)
    assert other.fill("yes_no", question="{x}", prediction="p") == "Q {x} A p ?"
    assert own.digest != other.digest and own.own and not other.own
    path.write_text('yes_no = "{secret}"\n')
    with pytest.raises(DataError, match="knows the fields"):
        load_prompts(path)
    path.write_text('other = "x"\n')
    with pytest.raises(DataError, match="judge prompts are texts"):
        load_prompts(path)
    for kind, fields in FIELDS.items():
        assert own.fill(kind, **dict.fromkeys(fields, "v"))


@pytest.mark.parametrize("name", ["MIA-Bench", "MMDU"])
def test_without_a_judge_a_judged_benchmark_is_not_scored_and_says_so(tmp_path: Path, name: str) -> None:
    suite = resolve_suites([name], SuiteOptions(data=write_all(tmp_path)))[0]
    scored = suite.score({task.id: ["x"] * len(task.turns) for task in suite.tasks()})
    assert scored.headline is None and "needs a judge" in scored.notes[0]
    assert {v.outcome for v in scored.samples} == {"not scored"}


def test_a_judged_benchmark_counts_what_the_judge_did(server: str, tmp_path: Path) -> None:
    Server.replies[:] = ["{'Overall Score': 7, 'Richness': 3}"]
    judge = make_judge("openai:m", base_url=server, record=tmp_path / "judge")
    suite = resolve_suites(["MMDU"], SuiteOptions(data=write_all(tmp_path), judge=judge))[0]
    scored = suite.score({task.id: ["x"] * len(task.turns) for task in suite.tasks()})
    assert scored.headline == pytest.approx(70) and scored.metrics["all.Creativity"] == 0
    assert scored.counts["judge_failed"] == 0 and scored.counts["judge_asked"] == scored.counts["turns"]
    assert suite.facts["judge"]["name"] == "openai:m"
