"""How the screens look: each at 140x40 running, the train screen in small terminals and every state."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from textual.pilot import Pilot
from textual.widgets import Input

from kore.telemetry import Telemetry
from kore_cli.dashboard.app import KoreApp
from tests.tui.conftest import NOW, FakeProbe
from tests.tui.test_chat import Chat

WIDE = (140, 40)
STATES = ("waiting", "running", "stalled", "dead", "finished", "no-gpu", "nan")


def shown(*keys: str) -> Callable[[Pilot[Any]], Any]:
    """Read the folder, press keys, wait for pictures."""

    async def run(pilot: Pilot[Any]) -> None:
        app = pilot.app
        assert isinstance(app, KoreApp)
        await pilot.pause()
        app.refresh_now()
        for key in keys:
            await pilot.press(key)
        await pilot.pause(0.2)
        await app.workers.wait_for_complete()
        await pilot.pause(0.2)

    return run


@pytest.mark.parametrize(
    "number,name", list(enumerate(("train", "spectra", "answers", "results", "knowledge"), 1))
)
def test_each_screen_of_a_run_looks_as_it_did(
    number: int, name: str, snap_compare: Any, make_run: Any, open_app: Any
) -> None:
    make_run(200, upto=130 if name == "train" else 200)
    assert snap_compare(open_app(), terminal_size=WIDE, run_before=shown(str(number)))


@pytest.mark.parametrize("size", [(140, 40), (80, 24)], ids=["140x40", "80x24"])
def test_the_list_of_runs_looks_as_it_did(
    size: tuple[int, int], snap_compare: Any, make_run: Any, open_app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORE_HOME", "home")
    monkeypatch.setattr("kore_cli.render.runs.time.time", lambda: NOW)
    for age, (name, status) in enumerate((("kore", "finished"), ("lora", "interrupted"), ("new", "failed"))):
        make_run(40, name=f"home/{name}", status=status)
        os.utime(f"home/{name}/run.json", (NOW - age, NOW - age))
    app = open_app(Path("home/kore"), others=(Path("home/lora"),))
    assert snap_compare(app, terminal_size=size, run_before=shown("o"))


@pytest.mark.parametrize("size", [(140, 40), (80, 24), (40, 12)], ids=["140x40", "80x24", "40x12"])
def test_the_chat_looks_as_it_did(size: tuple[int, int], snap_compare: Any, tmp_path: Path) -> None:
    path = tmp_path / "flag.png"
    Image.new("RGB", (60, 40), "red").save(path)
    chat = Chat(pictures=[str(path)], compare=True)

    async def talk(pilot: Pilot[Any]) -> None:
        chat.app.query_one("#ask", Input).cursor_blink = False
        await chat.ready(pilot)
        await chat.type(pilot, "Which country is this?")
        chat.client.answer("base", "I do not know this flag")
        chat.client.answer("kore", "This is the flag of Peru")
        chat.client.say({"index": 0, "done": True})
        await pilot.pause(0.3)
        await chat.app.workers.wait_for_complete()
        await pilot.pause(0.2)

    assert snap_compare(chat.app, terminal_size=size, run_before=talk)


def test_the_help_screen_looks_as_it_did(snap_compare: Any, make_run: Any, open_app: Any) -> None:
    make_run(200, upto=130)
    assert snap_compare(open_app(), terminal_size=WIDE, run_before=shown("question_mark"))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(80, 24), (40, 12)], ids=["80x24", "40x12"])
@pytest.mark.parametrize("state", STATES)
def test_the_train_screen_looks_as_it_did_in_every_state(
    state: str, size: tuple[int, int], snap_compare: Any, make_run: Any, open_app: Any
) -> None:
    app = in_state(state, make_run, open_app)
    assert snap_compare(app, terminal_size=size, run_before=shown())


def in_state(state: str, make_run: Any, open_app: Any) -> KoreApp:
    """An app that watches a run in the given state."""
    found: KoreApp
    if state == "waiting":
        found = open_app(Path("run"))
        return found
    made: dict[str, Any] = {"upto": 130}
    opened: dict[str, Any] = {}
    if state == "stalled":
        made["old"] = 600.0
    elif state == "dead":
        opened["alive"] = False
        opened["now"] = NOW + 90
    elif state == "finished":
        made |= {"upto": 200, "status": "finished"}
    elif state == "no-gpu":
        made["gpu"] = False
        reason = "no GPU: the NVIDIA driver is not installed here"
        opened["probe"] = FakeProbe(Telemetry((), 12.0, 2 << 30, reason))
    elif state == "nan":
        made |= {"nan_at": 130, "status": "failed"}
    make_run(200, **made)
    found = open_app(**opened)
    return found
