"""Teachers over a real server, with and without faults; what is paid, kept, repaired and never shown."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from kore.augment import grow
from kore.augment.asking import Asker, Usage
from kore.augment.call import Call, make_call
from kore.augment.cost_estimate import estimate
from kore.augment.parse import parse
from kore.augment.schemas import Answers, Questions, Summary, Verdict, schema_of
from kore.augment.worklog import WorkLog
from kore.config.schema import AugmentSection
from kore.data.read import read_records
from kore.data.records import Sample
from kore.errors import GateNotMet, ProviderError, UsageError
from kore.llm.cache import ReplyStore
from kore.llm.rate_limit import Bucket, Cost
from kore.llm.request import Busy, Refused, Reply, Unusable
from tests.augment_loopback import KEYS, Loopback, gadgets, loopback

FILES = ("tree.jsonl", "samples.jsonl", "eval.jsonl", "rejected.jsonl", "report.json")
SECRET = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KORE_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept"


def settings(server: Loopback, **more: object) -> AugmentSection:
    values: dict[str, object] = {"teacher": "openai:loopback", "base_url": server.url, "concurrency": 16}
    return AugmentSection.model_validate({**values, **more})


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def test_faults_change_nothing_in_the_final_files(
    tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = gadgets(24, picture)
    with loopback() as calm:
        grow(items, settings(calm), tmp_path / "calm")
    monkeypatch.setenv("KORE_CACHE", str(tmp_path / "kept again"))
    with loopback("--faults", "0.6", "--slow", "3") as wild:
        grow(items, settings(wild, timeout=1.0), tmp_path / "wild")
        seen = {name for name in wild.stats() if name.startswith("fault ")}
    assert contents(tmp_path / "calm") == contents(tmp_path / "wild")
    assert seen == {
        f"fault {f}" for f in ("429", "500", "slow", "truncated", "malformed", "refusal", "chatter", "hangup")
    }


@pytest.mark.parametrize("forms", ["json", "plain"])
def test_a_server_without_schemas_gives_the_same_result(
    tmp_path: Path, picture: Path, forms: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = gadgets(3, picture)
    with loopback() as full:
        grow(items, settings(full), tmp_path / "full")
    with loopback("--forms", forms) as bare:
        monkeypatch.setenv("KORE_CACHE", str(tmp_path / "kept again"))
        grow(items, settings(bare), tmp_path / "bare")
    assert contents(tmp_path / "full") == contents(tmp_path / "bare")


def test_a_model_that_takes_no_temperature_is_asked_without(tmp_path: Path, picture: Path) -> None:
    with loopback("--picky") as server:
        report = grow(gadgets(2, picture), settings(server, concurrency=1), tmp_path / "out")
        assert server.stats()["requests"] == server.stats()["replies"] + 1
    assert report.values["nothing_made_for"] == []


def test_a_call_that_cannot_be_taken_costs_its_item_alone(tmp_path: Path, picture: Path) -> None:
    items = gadgets(3, picture)
    items[1] = items[1].model_copy(update={"text": f"{items[1].text} UNFIT"})
    with loopback() as server:
        with pytest.raises(ProviderError, match=r"1 of 3 items failed, the first: g1: .*HTTP 400") as failed:
            grow(items, settings(server), tmp_path / "out")
        assert "--keep-going" in str(failed.value.hint)
        report = grow(items, settings(server), tmp_path / "out", keep_going=True)
    assert report.values["statistics"]["items"] == 2 and report.values["notes"] == {"items left out": 1}


def test_a_limit_of_cost_without_prices_is_refused(tmp_path: Path, picture: Path) -> None:
    section = AugmentSection(teacher="openai:m", base_url="http://127.0.0.1:1/v1", max_cost=1.0)
    with pytest.raises(UsageError, match="needs prices") as refused:
        grow(gadgets(1, picture), section, tmp_path / "out")
    assert "augment.price_in" in str(refused.value.hint)
    assert grow(gadgets(1, picture), AugmentSection(teacher="offline", max_cost=1.0), tmp_path / "free")


def test_the_judge_is_in_the_estimate_and_under_the_same_limit(tmp_path: Path, picture: Path) -> None:
    items = gadgets(2, picture)
    prices = {"price_in": 1000.0, "price_out": 1000.0}
    with loopback() as server:
        judged = settings(server, judge="openai:judge", **prices)
        before = estimate(items, judged, 0)
        grow(items, judged, tmp_path / "out")
        asked = server.stats()["requests"]
        after = estimate(items, judged, 0)
        assert before.calls > after.calls == after.cached == asked == 4 * 2 + 2 * (4 + 1 + 4)
        assert (before.money or 0) > 0 == after.money
        with pytest.raises(GateNotMet, match=r"limit of 0\.5"):
            grow(items, settings(server, judge="openai:other", max_cost=0.5, **prices), tmp_path / "more")


def test_nothing_is_paid_twice(tmp_path: Path, picture: Path) -> None:
    items = gadgets(5, picture)
    with loopback() as server:
        grow(items, settings(server), tmp_path / "once")
        paid = server.stats()["requests"]
        grow(items, settings(server, copies=3), tmp_path / "again")
        assert server.stats()["requests"] == paid == 4 * len(items)


def test_two_servers_with_a_model_of_one_name_do_not_share_replies(tmp_path: Path, picture: Path) -> None:
    items = gadgets(2, picture)
    with loopback() as one, loopback() as other:
        grow(items, settings(one), tmp_path / "one")
        grow(items, settings(other), tmp_path / "other")
        assert one.stats()["requests"] == other.stats()["requests"] == 8
        slash = settings(one).model_copy(update={"base_url": f"{one.url}/"})
        grow(items, slash, tmp_path / "slash")
        assert one.stats()["requests"] == 8


def test_a_wrong_key_ends_at_once_and_is_never_shown(
    tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with loopback("--key", "another") as server:
        with pytest.raises(ProviderError) as error:
            grow(gadgets(50, picture), settings(server), tmp_path / "out")
        assert "requests" not in server.stats()
    assert error.value.exit_code == 5
    assert SECRET not in str(error.value) and "***" in str(error.value)
    for path in [*(tmp_path / "out").rglob("*"), *(tmp_path / "kept").rglob("*")]:
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()


def test_the_key_is_in_no_file_that_is_written(
    tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with loopback("--key", SECRET, "--faults", "0.3", "--slow", "2") as server:
        grow(gadgets(6, picture), settings(server, timeout=1.0), tmp_path / "out")
    written = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(written) > 10
    assert all(SECRET.encode() not in path.read_bytes() for path in written)


def test_no_key_and_no_choice_name_the_options(tmp_path: Path, picture: Path) -> None:
    for teacher in (None, "openai:gpt-4o"):
        with pytest.raises(UsageError) as error:
            grow(gadgets(1, picture), AugmentSection(teacher=teacher), tmp_path / "out")
        said = " ".join(error.value.lines())
        assert all(choice in said for choice in ("openai:MODEL", "hf:PATH", "offline", "replay:FILE"))


def test_the_cost_limit_stops_before_it_is_passed_and_the_rest_follows(tmp_path: Path, picture: Path) -> None:
    items = gadgets(12, picture)
    prices = {"price_in": 1000.0, "price_out": 1000.0}
    with loopback() as server:
        limited = settings(server, max_cost=4.0, concurrency=2, **prices)
        with pytest.raises(GateNotMet) as stopped:
            grow(items, limited, tmp_path / "out")
        assert stopped.value.exit_code == 6
        first = server.stats()["requests"]
        assert 0 < first < 48
        for _ in range(2):  # the same command again: what was spent before counts
            with pytest.raises(GateNotMet, match="limit of 4"):
                grow(items, limited, tmp_path / "out")
        with WorkLog(tmp_path / "out") as log:
            assert 2 < (log.paid_in + log.paid_out) / 1000 <= 4
        grow(items, settings(server, **prices), tmp_path / "out")
        assert server.stats()["requests"] == 48
        used = json.loads((tmp_path / "out" / "report.json").read_text())["usage"]
    assert used["calls"] == 48


def test_a_server_that_stays_down_costs_only_its_items(tmp_path: Path, picture: Path) -> None:
    with loopback() as server:
        gone = server.url
    section = AugmentSection(teacher="openai:x", base_url=gone, retries=1, concurrency=4)
    with pytest.raises(ProviderError, match="2 of 2 items failed"):
        grow(gadgets(2, picture), section, tmp_path / "out")


class Scripted:
    """A teacher that says what it is told to."""

    name = "scripted"
    parameters: dict[str, object] = {}  # noqa: RUF012
    cached = True

    def __init__(self, *replies: str | Exception) -> None:
        self.replies = list(replies)
        self.repairs: list[tuple[str, str] | None] = []

    async def reply(self, call: Call, repair: tuple[str, str] | None = None) -> Reply:
        self.repairs.append(repair)
        said = self.replies.pop(0)
        if isinstance(said, Exception):
            raise said
        return Reply(said, 10, 5)

    async def close(self) -> None:
        pass


def ask(teacher: Scripted, tmp_path: Path, **more: object) -> Summary:
    section = AugmentSection.model_validate({"teacher": "x", **more})
    call = make_call("summary", Summary, gadgets(1)[0], 0)

    async def run() -> Summary:
        return await Asker(teacher, section, ReplyStore(tmp_path), Cost()).ask(call, Summary, Usage())

    return asyncio.run(run())


def test_an_unreadable_reply_is_sent_back_once_with_what_is_wrong(tmp_path: Path) -> None:
    teacher = Scripted("not json at all", '{"summary": "fine"}')
    assert ask(teacher, tmp_path).summary == "fine"
    assert teacher.repairs[0] is None
    assert teacher.repairs[1] is not None and teacher.repairs[1][0] == "not json at all"


def test_a_busy_server_is_given_the_time_that_it_asked_for(tmp_path: Path) -> None:
    began = time.monotonic()
    assert ask(Scripted(Busy("HTTP 429", 0.3), '{"summary": "fine"}'), tmp_path).summary == "fine"
    assert 0.3 <= time.monotonic() - began < 5


def test_rephrasings_of_a_model_are_the_samples(tmp_path: Path, picture: Path) -> None:
    with loopback() as server:
        report = grow(
            gadgets(2, picture), settings(server, strategy="text-aware", copies=3), tmp_path / "out"
        )
        assert server.stats()["requests"] == 2
    answers = [s.conversations[1].value for s in read_records(Sample, report.samples)]
    assert len(set(answers)) == 6 and all(a.startswith("It is so that the") for a in answers)


def test_only_a_reply_that_can_be_read_is_kept(tmp_path: Path) -> None:
    with pytest.raises(Unusable):
        ask(Scripted("junk", "junk", "junk"), tmp_path, retries=2)
    assert not list(tmp_path.rglob("*.json"))


def test_a_model_that_declines_thrice_is_taken_at_its_word(tmp_path: Path) -> None:
    teacher = Scripted(*[Refused("no")] * 9)
    with pytest.raises(Refused):
        ask(teacher, tmp_path)
    assert len(teacher.repairs) == 3


def test_a_server_that_was_busy_has_not_refused_yet(tmp_path: Path) -> None:
    said = [
        Busy("HTTP 500", 0.0),
        Busy("HTTP 500", 0.0),
        Refused("no"),
        "junk",
        "junk",
        '{"summary": "fine"}',
    ]
    assert ask(Scripted(*said), tmp_path, retries=2).summary == "fine"


@pytest.mark.parametrize(
    "text",
    [
        '{"answers": ["a", "b"]}',
        'Here you go:\n```json\n{"answers": ["a", "b"]}\n```',
        '<think>{"answers": []}</think>{"answers": ["a", "b",]}',
        '["a", "b"]',
        '\ufeff{"answers": ["a", "b"], "more": 1}',
    ],
)
def test_a_tolerant_parse_finds_the_json(text: str) -> None:
    assert parse(text, Answers).answers == ["a", "b"]


@pytest.mark.parametrize(
    "text", ["", '{"answers": ["a", "b', '{"answers": "a"}', "[[[[", '{"questions": []}']
)
def test_a_reply_that_breaks_off_or_differs_is_never_taken_in_part(text: str) -> None:
    with pytest.raises(Unusable):
        parse(text, Answers)


def test_schemas_are_strict_and_hide_what_only_rules_fill_in() -> None:
    schema = schema_of(Questions)
    assert schema["required"] == ["questions"] and schema["additionalProperties"] is False


def test_a_bucket_lets_its_rate_through_and_no_more() -> None:
    clock = [0.0]
    bucket = Bucket(60, now=lambda: clock[0])
    waited = [bucket.delay(1) for _ in range(12)]
    assert waited[:6] == [0.0] * 6, "a tenth of a minute's worth may go at once"
    assert waited[6:] == pytest.approx([1, 2, 3, 4, 5, 6])
    clock[0] = 100.0
    assert bucket.delay(1) == 0.0


def test_replayed_replies_teach_like_the_model_that_gave_them(tmp_path: Path, picture: Path) -> None:
    items = gadgets(2, picture)
    recorded = []
    for item in items:
        number = item.id[1:]
        sentence = f"The price of Gadget {number} is price {number}."
        recorded += [
            {
                "item": item.id,
                "task": "questions",
                "text": json.dumps({"questions": [f"What does Gadget {number} cost?"]}),
            },
            {"item": item.id, "task": "answers", "text": json.dumps({"answers": [sentence]})},
            {"item": item.id, "task": "summary", "text": json.dumps({"summary": sentence})},
            {"item": item.id, "task": "vqa", "text": json.dumps({"quadruplets": []})},
        ]
    path = tmp_path / "replies.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in recorded))
    report = grow(items, AugmentSection(teacher=f"replay:{path}"), tmp_path / "out")
    assert report.values["statistics"]["rounds"] == 10  # three facts an item more, by template
    assert "What does Gadget 1 cost?" in (tmp_path / "out" / "samples.jsonl").read_text()


def test_a_reply_that_was_not_recorded_names_item_and_task(tmp_path: Path, picture: Path) -> None:
    path = tmp_path / "replies.jsonl"
    path.write_text('{"item": "other", "task": "vqa", "text": "{}"}\n')
    with pytest.raises(ProviderError, match=r"no recorded reply for \w+ of item g0"):
        grow(gadgets(1, picture), AugmentSection(teacher=f"replay:{path}"), tmp_path / "out")


def test_a_judge_has_the_last_word_on_what_the_rules_let_through(tmp_path: Path, picture: Path) -> None:
    items = gadgets(1, picture)
    verdicts = [
        {"prompt": asked.user, "text": json.dumps({"supported": key != "weight", "reason": "made up"})}
        for key in KEYS
        for answer in (f"The {key} of Gadget 0 is {key} 0.", f"{key} 0")
        for question in [f"What is the {key} of Gadget 0?"]
        for asked in [make_call("judge", Verdict, items[0], 0, question=question, answer=answer)]
    ]
    verdicts.append({"item": "g0", "task": "judge", "text": '{"supported": true, "reason": ""}'})
    path = tmp_path / "verdicts.jsonl"
    path.write_text("".join(json.dumps(v) + "\n" for v in verdicts))
    with loopback() as server:
        report = grow(items, settings(server, judge=f"replay:{path}"), tmp_path / "out")
    rejected = (tmp_path / "out" / "rejected.jsonl").read_text()
    assert report.values["grounding"]["reasons"] == {"judge": 2} and "weight 0" in rejected
    answers = {m.value for sample in read_records(Sample, report.samples) for m in sample.conversations}
    assert "The weight of Gadget 0 is weight 0." not in answers and "price 0" in answers
    assert report.values["grounding"]["by_template"]  # the item's own fact is taught all the same
    with pytest.raises(UsageError, match="cannot judge"):
        grow(items, AugmentSection(teacher="offline", judge="offline"), tmp_path / "other")


def test_what_this_run_spent_is_told_apart_from_what_the_replies_took(tmp_path: Path, picture: Path) -> None:
    items = gadgets(2, picture)
    with loopback() as server:
        first = grow(items, settings(server, price_in=1.0, price_out=1.0), tmp_path / "a")
        second = grow(items, settings(server, price_in=1.0, price_out=1.0, copies=2), tmp_path / "b")
    assert first.spent["calls"] == 8 and first.spent["money"] > 0
    assert second.spent["calls"] == 0 and second.spent["from_cache"] == 8 and second.spent["money"] == 0
    assert first.values["usage"] == second.values["usage"]
