"""The list of runs, and runs that are odd: each is shown as what it is, and none ends the dashboard."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from threading import Event, current_thread, main_thread
from typing import Any

import pytest
from textual.widgets import OptionList

from kore.artifacts.events import EventWriter
from kore.artifacts.run import Run, all_runs
from kore.errors import DataError
from kore_cli.dashboard.app import KoreApp
from kore_cli.screens.runs import RunsScreen
from kore_cli.widgets.chart import Chart
from tests.tui.test_behaviour import settle, text

Make, Open = Callable[..., Path], Callable[..., KoreApp]
ODD: list[dict[str, Any]] = [
    {"started": None},
    {"started": "then"},
    {"started": 1e300},
    {"ended": "x"},
    {"method": 3},
    {"status": "odd"},
    {"command": [1]},
    {"command": "kore train"},
    {"inputs": {"tree": {"path": 3}}},
    {"inputs": {"tree": 3}},
    {"pid": 10**30},
    {"pid": 0},
    {"message": {}},
    {"profile": []},
    {"result": None},
    {"host": 5},
]


def spoil(folder: Path, odd: dict[str, Any]) -> None:
    """Put odd values into a run.json."""
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | odd))


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_a_field_of_another_type_is_a_data_error(odd: dict[str, Any], make_run: Make) -> None:
    folder = make_run(1)
    assert Run(folder).state().pid == 4242
    spoil(folder, odd)
    with pytest.raises(DataError, match="not a run of this version"):
        Run(folder).state()


async def test_an_odd_run_is_told_and_ends_neither_the_list_nor_the_screens(
    make_run: Make, open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORE_HOME", "home")
    for number, odd in enumerate(({"started": None}, {"pid": 10**30}, {"inputs": {"tree": {"path": 3}}})):
        spoil(make_run(1, name=f"home/{number}"), odd)
    app = open_app(Path("home/2"))
    async with app.run_test(size=(120, 35)) as pilot:
        await settle(pilot, "o")
        lines = [str(o.prompt) for o in app.screen.query_one(OptionList).options]
        assert len(lines) == 3 and all("unreadable" in line for line in lines)
        await settle(pilot, "escape", "5")
        assert "not a run of this version" in text(app, "#banner")


async def test_numbers_too_large_to_draw_are_not_drawn(make_run: Make, open_app: Open) -> None:
    folder = make_run(20, upto=10)
    with EventWriter(folder) as writer:
        writer.write("step", step=11, steps=20, loss=1e308)
        writer.write("step", step=12, steps=20, loss=-1e308)
        writer.write("step", step=13, steps=20, loss=1e99)
    app = open_app()
    async with app.run_test(size=(120, 35)) as pilot:
        await settle(pilot, "l", "l")
        assert app.screen.query_one(Chart)._lines[-1].curve.x[-1] == 13


async def test_the_list_of_runs_is_read_beside_the_screen(
    make_run: Make, open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORE_HOME", "home")
    make_run(1, name="home/a")
    readers = []
    monkeypatch.setattr(
        "kore_cli.render.runs.all_runs", lambda: readers.append(current_thread()) or all_runs()
    )
    app = open_app(Path("home/a"))
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot, "o")
        assert readers and main_thread() not in readers


async def test_a_list_that_takes_longer_than_its_turn_is_shown_all_the_same(
    make_run: Make, open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORE_HOME", "home")
    make_run(1, name="home/a")
    go_on, readings = Event(), []
    monkeypatch.setattr(
        "kore_cli.render.runs.all_runs", lambda: readings.append(go_on.wait(30)) or all_runs()
    )
    app = open_app(Path("home/a"))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("o")
        screen = app.screen
        assert isinstance(screen, RunsScreen)
        for _ in range(3):  # turns that pass meanwhile
            screen._list()
        go_on.set()
        await settle(pilot)
        assert screen.query_one(OptionList).option_count == 1 and len(readings) == 1


async def test_the_list_of_runs_bears_every_size(
    make_run: Make, open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORE_HOME", "home")
    make_run(1, name="home/a")
    app = open_app(Path("home/a"))
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot, "o")
        for size in ((8, 12), (7, 24), (5, 5), (1, 1), (80, 24)):
            await pilot.resize_terminal(*size)
            await settle(pilot)
        assert app.is_running and app.screen.query_one(OptionList).option_count == 1


async def test_runs_of_two_injections_are_told_apart(
    make_run: Make, open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORE_HOME", "home")
    for name in "ab":
        make_run(20, name=f"home/{name}/run")
        os.utime(f"home/{name}/run/run.json", (ord(name), ord(name)))
    app = open_app(Path("home/a"), others=(Path("home/b"),))
    async with app.run_test(size=(140, 40)) as pilot:
        await settle(pilot, "e")
        assert "a/run" in text(app, "#header") and [o.name for o in app.overlays] == ["b/run"]
        legend = str(app.screen.query_one(Chart).border_subtitle)
        assert "a/run" in legend and "b/run" in legend
        assert list(Path().glob("a-run-train-*.csv"))
        await settle(pilot, "o")
        lines = [str(o.prompt) for o in app.screen.query_one(OptionList).options]
        assert [line[:7] for line in lines] == ["+ b/run", "▶ a/run"]
