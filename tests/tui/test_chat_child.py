"""The chat and its child: what the child is told, and a real one with the embedded model."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kore.artifacts.run import Run, RunState
from kore_cli.chat import stdio as chat_pipe
from kore_cli.chat.child import ChatClient
from kore_cli.chat.start import child_argv
from kore_cli.chat.stdio import Plan
from kore_cli.main import app

# the screen of a real chat, whose process tells in the end what it has loaded
SCREEN = """
import asyncio, sys
from textual.app import App
from textual.widgets import Input
from kore_cli.chat.stdio import Plan
from kore_cli.chat.start import open_chat

async def talk(app):
    async with app.run_test(size=(100, 30)) as pilot:
        async def until(so):
            while not so():
                assert app.closed is None, app.closed
                await pilot.pause(0.05)
        await until(lambda: app.speakers.models)
        app.query_one("#ask", Input).value = "Which country is this?"
        await pilot.press("enter")
        await until(lambda: app.exchanges and app.exchanges[0].done)
        (answer,) = app.exchanges[0].answers.values()
        assert answer.done and answer.text.strip() and not app.exchanges[0].error, answer

App.run = lambda app, mouse=True: asyncio.run(talk(app))
open_chat(Plan("kore-tiny", max_new_tokens=8), [], context=None, theme="kore-dark", images="off")
print([name for name in ("torch", "transformers", "peft") if name in sys.modules])
"""


@pytest.mark.parametrize(
    "plan",
    [
        Plan("kore-tiny"),
        Plan("runs/a", profile="tiny", settings={"model.dtype": "float32"}, max_new_tokens=9),
        Plan("runs/a", rag=Path("items"), download=True),
    ],
)
def test_the_child_is_asked_for_what_the_command_was(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[Plan] = []
    monkeypatch.setattr(chat_pipe, "answer_lines", plans.append)
    done = CliRunner().invoke(app, ["chat", *child_argv(plan, plan.name), "--stream"])
    assert done.exception is None
    (child,) = plans
    for name in ("target", "profile", "settings", "max_new_tokens", "rag", "download"):
        assert getattr(child, name) == getattr(plan, name)


@pytest.mark.slow
def test_a_real_child_says_when_it_is_ready_answers_in_pieces_and_ends_when_it_is_closed() -> None:
    heard: queue.Queue[dict[str, Any]] = queue.Queue()
    client = ChatClient(child_argv(Plan("kore-tiny", max_new_tokens=8), "kore-tiny"), heard.put)
    try:
        ready = heard.get(timeout=120)
        assert ready["ready"] and ready["models"] == ["base"]
        client.ask({"text": "Which country is this?", "id": "é"})
        events = [heard.get(timeout=120)]
        while not events[-1].get("done"):
            events.append(heard.get(timeout=120))
        pieces = "".join(e.get("delta", "") for e in events)
        assert pieces.strip() == events[-1]["answer"] != "" and events[-1]["id"] == "é"
        client.ask({"text": " "})
        assert "error" in heard.get(timeout=120)
    finally:
        client.close()
    closed = heard.get(timeout=10)
    assert closed["closed"] == 3 and "1 line could not be answered" in closed["words"]


@pytest.mark.slow
def test_a_real_chats_screen_loads_no_model_library() -> None:
    done = subprocess.run([sys.executable, "-c", SCREEN], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_the_newest_run_that_has_an_adapter_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KORE_HOME", str(tmp_path))
    assert Plan(None).name == "kore-tiny"
    for number, name in enumerate(("old", "whole", "training")):
        run = Run(tmp_path / name)
        run.write(RunState("running", "kore", ["kore", "train"], {}))
        os.utime(run.folder / "run.json", (number, number))
        if name != "training":
            run.adapter.mkdir()
            (run.adapter / "adapter_config.json").write_text("{}")
    assert Plan(None).name == str(tmp_path / "whole")
