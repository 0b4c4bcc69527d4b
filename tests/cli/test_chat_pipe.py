"""The chat's pipes without a model: how lines are read, stopped, and how the program ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from kore.errors import DataError, Interrupted
from kore_cli.chat import stdio as chat_pipe
from kore_cli.main import main

# the real command, whose model says what it was asked, slowly
PARROT = """
import sys, time, types
from kore.chat import Reply
from kore_cli.chat import stdio as chat_pipe

class Parrot:
    models = ["base"]
    target = types.SimpleNamespace(model="parrot")
    def answer(self, asks):
        if any(a.text == "too much" for a in asks):
            raise ValueError("what the processor says")
        return [[Reply("base", a.text, 0.0)] for a in asks]
    def stream(self, ask, stop):
        while ask.text == "for ever" and not stop():
            time.sleep(0.01)
        if ask.text == "too much":
            raise ValueError("what the processor says")
        yield "base", Reply("base", ask.text, 0.0, stopped=stop())

chat_pipe.Plan.open = lambda self: Parrot()
sys.argv = ["kore", "chat", "parrot", *sys.argv[1:]]
from kore_cli.main import main
main()
"""


def parrot(*args: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PARROT, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **{"stdin": subprocess.PIPE, **options},
    )


@pytest.fixture
def talk() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are ended, whatever comes."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def say(stream: IO[str] | None, *lines: str) -> None:
    assert stream is not None
    stream.write("".join(line + "\n" for line in lines))
    stream.flush()


@pytest.mark.parametrize("how", ["--json", "--stream"])
def test_control_c_while_a_line_is_waited_for_ends_as_interrupted(
    how: str, talk: list[subprocess.Popen[str]]
) -> None:
    process = parrot(how)
    talk.append(process)
    say(process.stdin, "hi")
    assert process.stdout is not None and process.stdout.readline()
    process.send_signal(signal.SIGINT)  # while standard input is still open
    process.wait(timeout=60)
    assert process.stderr is not None and "Fatal" not in process.stderr.read()
    assert process.returncode == 130


@pytest.mark.parametrize("code", [0, 1, 130])
def test_an_interrupted_command_does_not_wait_for_the_interpreters_own_end(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []
    monkeypatch.setattr("kore_cli.errors.ended", lambda command: code)
    monkeypatch.setattr("kore_cli.main._leave", left.append)
    monkeypatch.setattr("kore_cli.output.keep_stdout_clean", lambda: None)
    with pytest.raises(SystemExit) as exit:
        main()
    assert exit.value.code == code and left == [code] * (code == 130)


def test_a_reader_that_leaves_ends_it_as_any_closed_pipe(talk: list[subprocess.Popen[str]]) -> None:
    process = parrot("--json")
    talk.append(process)
    say(process.stdin, "one")
    assert process.stdout is not None and process.stdout.readline()
    process.stdout.close()
    say(process.stdin, "two")  # and standard input stays open
    process.wait(timeout=60)
    assert process.stderr is not None and not process.stderr.read()
    assert process.returncode == 141


@pytest.mark.parametrize("args", [("--json",), ()])
def test_a_closed_standard_input_is_no_question(
    args: tuple[str, ...], talk: list[subprocess.Popen[str]]
) -> None:
    process = parrot(*args, stdin=None, preexec_fn=lambda: os.close(0))
    talk.append(process)
    out, words = process.communicate(timeout=60)
    assert (process.returncode, out, words) == (0, "", "")


def test_an_input_that_cannot_be_read_is_an_error(talk: list[subprocess.Popen[str]], tmp_path: Path) -> None:
    with (tmp_path / "lines").open("w") as unreadable:
        process = parrot("--json", stdin=unreadable)
    talk.append(process)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 3 and "cannot be read" in words and "Traceback" not in words


def test_a_stop_is_heard_behind_many_waiting_questions_however_it_is_written(
    talk: list[subprocess.Popen[str]],
) -> None:
    process = parrot("--stream")
    talk.append(process)
    many = [f"question {i}" for i in range(20)]
    say(process.stdin, "for ever", *many, '{"stop":true}', "after", '{"stop": false}')
    out, _ = process.communicate(timeout=60)
    events = [json.loads(line) for line in out.splitlines()]
    done = [e for e in events if e.get("done")]
    assert [e["text"] for e in done] == ["for ever", *many, "after"]
    assert [bool(e.get("stopped")) for e in done] == [True] * 21 + [False]
    assert "error" in events[-1]  # what is not exactly the wish to stop is a bad question


@pytest.mark.parametrize("how", ["--json", "--stream"])
@pytest.mark.parametrize("debug", ["0", "1"])
def test_what_nobody_foresaw_is_the_error_of_its_question_alone(
    how: str, debug: str, talk: list[subprocess.Popen[str]]
) -> None:
    process = parrot(how, "--quiet", env={**os.environ, "KORE_DEBUG": debug})
    talk.append(process)
    asked = ["one", json.dumps({"id": 7, "text": "too much"}), "two", json.dumps({"text": "three"})]
    out, words = process.communicate("\n".join(asked), timeout=60)
    events = [json.loads(line) for line in out.splitlines()]
    told = [e for e in events if "error" in e or e.get("done") or how == "--json"]
    assert [e.get("text") for e in told] == ["one", None, "two", "three"]
    assert told[1]["error"] == "unexpected ValueError: what the processor says"
    assert (told[1]["id"], told[1]["where"]) == (7, "stdin:2")
    assert process.returncode != 0 and ("what the processor says" in words) == (debug == "1")


class Answers:
    """A session that answers at once, or is interrupted twice."""

    models = ("base",)

    def __init__(self, interrupted: bool) -> None:
        self._interrupted = interrupted

    def stream(self, ask: Any, stop: Any) -> Iterator[tuple[str, Any]]:
        from kore.chat import Reply

        if self._interrupted:
            signal.raise_signal(signal.SIGINT)
        yield "base", Reply("base", "yes", 0.0, stopped=stop())


@pytest.mark.parametrize("interrupted", [False, True])
def test_control_c_is_given_back_when_the_answer_is_there(
    interrupted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert threading.current_thread() is threading.main_thread()
    monkeypatch.setattr(chat_pipe.Plan, "open", lambda self: Answers(interrupted))
    before = signal.getsignal(signal.SIGINT)
    try:
        chat_pipe.answer_once(chat_pipe.Plan("x", json=True), "?")
    except Interrupted:
        assert interrupted
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("once", [True, False])
def test_a_missing_picture_is_told_before_the_model_is_loaded(
    once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(*args: object, **options: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr("kore.chat.Session.open", loaded)
    plan = chat_pipe.Plan("x", images=("/no/such.png",))
    with pytest.raises(DataError) as caught:
        chat_pipe.answer_once(plan, "?") if once else chat_pipe.answer_lines(plan)
    assert "/no/such.png" in f"{caught.value.where} {caught.value}"
