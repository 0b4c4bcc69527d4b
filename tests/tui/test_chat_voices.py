"""Who answers in the chat, what is said when nobody can, and keys that rest behind a window."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from textual.containers import VerticalScroll
from textual.widgets import Input
from textual.widgets._footer import FooterKey

from kore.artifacts.run import title_of
from kore_cli.chat.child import ChatClient
from kore_cli.chat.header import exit_reason
from kore_cli.chat.speakers import Speakers
from tests.tui.test_chat import Chat


def told(chat: Chat) -> list[str]:
    return [n.message for n in chat.app._notifications]


def test_runs_in_folders_of_their_own_are_told_apart() -> None:
    assert title_of("runs/mine/run") == "mine/run" and title_of("runs/demo/") == "demo"
    assert title_of("run") == "run" and title_of(".") == Path.cwd().name and title_of("org/model") == "model"


async def test_adapters_of_one_name_keep_what_each_said_apart() -> None:
    chat = Chat(target="runs/mine/run", adapters=["runs/yours/run"])
    async with chat.app.run_test(size=(160, 30)) as pilot:
        await chat.ready(pilot)
        await chat.type(pilot, "Who?")
        await chat.done(pilot, ("kore", "Ada"))
        await pilot.press("ctrl+g", "ctrl+g")
        assert "from mine/run   yours/run from the next question" in chat.head()
        await chat.type(pilot, "Who?")
        assert chat.client.asked[-1]["use"] == "runs/yours/run" and not chat.client.asked[-1]["history"]
        await chat.ready(pilot)
        assert "from yours/run   on" in chat.head()


@pytest.mark.parametrize("who", ["base", "kore", "ragg"])
async def test_whom_the_command_named_is_asked_also_while_the_model_loads(who: str) -> None:
    chat = Chat(who=who)
    async with chat.app.run_test(size=(100, 30)) as pilot:
        await chat.type(pilot, "Who?")
        await chat.ready(pilot)
        assert chat.client.asked[0]["model"] == who  # the child tells what is misspelt
        assert f"answers: {who}" in chat.head()


def test_kore_is_the_adapter_whatever_its_method() -> None:
    for models, expected in ((["rag", "lora", "base"], "lora"), (["base"], "base")):
        speakers = Speakers("x", who="kore", compare=False)
        assert speakers.ask() == {"model": "kore"}
        speakers.ready(models)
        assert speakers.answering == [expected] and speakers.ask() == {"model": expected}


async def test_an_error_leaves_whole_answers_as_they_are() -> None:
    chat = Chat(compare=True)
    async with chat.app.run_test(size=(120, 30)) as pilot:
        await chat.ready(pilot)
        await chat.type(pilot, "Who?")
        chat.client.answer("base", "I do not know")
        chat.client.say({"index": 0, "model": "kore", "delta": "It is"})
        chat.client.say({"closed": -9, "words": ""})
        await chat.until(pilot, lambda: "error: exit code -9" in chat.shown())
        assert "I do not know" in chat.shown() and "It is" in chat.shown() and "▌" not in chat.shown()


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("warning\nerror: no model X here\n  kore data fetch X\n", "no model X here; kore data fetch X"),
        ("error: one\nerror: two", "two"),
        ("first\nKilled\n\n", "Killed"),
        ("\n", "exit code 4"),
        ("", "exit code 4"),
        ("error:", "exit code 4"),
    ],
)
def test_why_the_model_has_gone_is_its_last_error_with_the_next_step(words: str, shown: str) -> None:
    assert exit_reason(words, 4) == shown


async def test_the_reason_why_the_model_has_gone_is_shown_also_where_there_is_none() -> None:
    chat = Chat()
    async with chat.app.run_test(size=(100, 30)) as pilot:
        chat.client.say({"closed": 4, "words": "\n"})
        await chat.until(pilot, lambda: "the model process ended: exit code 4" in chat.head())


async def test_keys_of_the_chat_rest_behind_a_window(picture: Path) -> None:
    chat = Chat(pictures=[str(picture)])
    async with chat.app.run_test(size=(80, 24)) as pilot:
        await chat.ready(pilot)
        await chat.type(pilot, "Who?")
        await chat.done(pilot, ("kore", "a line\n" * 60))
        talk = chat.app.query_one("#talk", VerticalScroll)
        await chat.until(pilot, lambda: 0 < talk.max_scroll_y == talk.scroll_y)
        before = talk.scroll_y
        for opened, closed in (("f1", "f1"), ("f1", "escape"), ("ctrl+o", "escape")):
            await pilot.press(opened)
            await chat.until(pilot, lambda: len(chat.app.screen_stack) == 2)
            if opened == "ctrl+o":
                chat.app.screen.query_one(Input).value = ""
                await pilot.press("backspace", "up", "down", "up")
            await pilot.press("pageup", "ctrl+b", "ctrl+g", "ctrl+r", "ctrl+l", "ctrl+s", "ctrl+o")
            assert len(chat.app.screen_stack) == 2
            await pilot.press(closed)
            await chat.until(pilot, lambda: len(chat.app.screen_stack) == 1)
        assert talk.scroll_y == before and not chat.app.speakers.compare and not list(Path().glob("*.md"))
        assert len(chat.client.asked) == len(chat.app.exchanges) == 1 and "answers: kore" in chat.head()
        assert chat.app.pictures == [str(picture)] and chat.app.query_one("#ask", Input).value == ""
        assert "compare" in {k.action for k in chat.app.screen.query(FooterKey)}
        await pilot.press("f1", "ctrl+q")
        await chat.until(pilot, lambda: not chat.app.is_running)


@pytest.mark.parametrize("key", ["ctrl+l", "ctrl+r", "ctrl+t"])
async def test_a_key_that_waits_for_the_answer_says_so(key: str) -> None:
    chat = Chat()
    async with chat.app.run_test(size=(100, 30)) as pilot:
        await chat.ready(pilot)
        await chat.type(pilot, "Who?")
        await pilot.press(key)
        assert told(chat) == ["still answering; ^c stops it"] and len(chat.app.exchanges) == 1


async def test_turning_to_another_model_where_there_is_none_says_so() -> None:
    chat = Chat(models=("base",), who="base")
    async with chat.app.run_test(size=(100, 30)) as pilot:
        await pilot.press("ctrl+g")
        await chat.ready(pilot)
        await pilot.press("ctrl+g")
        assert told(chat) == ["the model is still loading", "no other model can answer"]
        assert chat.app.speakers.who == "base"


def child(tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client start this in Python's place."""
    path = tmp_path / "child"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr("kore_cli.chat.child.sys.executable", str(path))


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_child_is_ended_and_its_pipes_are_closed(
    stubborn: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child(tmp_path, f"trap '' TERM; echo '{{}}'; exec {'sleep 60' if stubborn else 'cat'}", monkeypatch)
    started = threading.Event()
    client = ChatClient([], lambda event: started.set())
    assert started.wait(20)
    if stubborn:
        monkeypatch.setattr("kore_cli.chat.child.EXIT_TIMEOUT", 0.2)
    client.close()
    process = client._process
    assert process.returncode == (-9 if stubborn else 0)
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.closed and process.stderr.closed
    client.close()  # once more does no harm


def test_what_a_child_prints_that_is_no_object_are_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child(tmp_path, """printf '3\\n[1]\\n{"ready": true}\\nnoise\\n'; exit 4""", monkeypatch)
    events: list[dict[str, Any]] = []
    client = ChatClient([], events.append)
    client._stdout_thread.join(timeout=20)
    client.close()
    assert events == [{"ready": True}, {"closed": 4, "words": "3\n[1]\nnoise"}]
