"""What the dashboard does when keys are pressed, files change and terminals shrink."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Static

from kore.artifacts.events import EventWriter
from kore.artifacts.run import Run
from kore_cli.dashboard.app import KoreApp
from kore_cli.screens.answers import AnswersScreen
from kore_cli.screens.runs import RunsScreen
from kore_cli.screens.train import TrainScreen
from kore_cli.widgets.chart import Chart
from tests.tui.conftest import NOW

Make, Open = Callable[..., Path], Callable[..., KoreApp]


async def settle(pilot: Pilot[Any], *keys: str) -> None:
    """Read the folder, press keys, let everything finish."""
    app = pilot.app
    assert isinstance(app, KoreApp)
    await pilot.pause()
    app.refresh_now()
    for key in keys:
        await pilot.press(key)
    await pilot.pause()
    await app.workers.wait_for_complete()
    await pilot.pause()


def text(app: KoreApp, selector: str) -> str:
    """What a Static shows."""
    return str(app.screen.query_one(selector, Static).render())


async def test_number_keys_turn_to_each_screen(make_run: Make, open_app: Open) -> None:
    make_run(40)
    async with open_app().run_test(size=(120, 35)) as pilot:
        await settle(pilot)
        for key, name in zip("12345", ("Train", "Spectra", "Answers", "Results", "Knowledge"), strict=True):
            await pilot.press(key)
            assert type(pilot.app.screen).__name__ == f"{name}Screen"


async def test_a_run_that_is_not_there_is_waited_for_and_then_shown(make_run: Make, open_app: Open) -> None:
    app = open_app(Path("run"))
    async with app.run_test(size=(100, 30)) as pilot:
        await settle(pilot)
        assert "waiting" in text(app, "#header")
        assert "kore train" in text(app, "#banner")
        make_run(40)
        await settle(pilot)
        assert "step 40/40" in text(app, "#header")


async def test_new_events_show_and_pausing_freezes_all_but_the_header(make_run: Make, open_app: Open) -> None:
    folder = make_run(40, upto=20)
    app = open_app()
    async with app.run_test(size=(120, 35)) as pilot:
        await settle(pilot, "space")
        before = text(app, "#tile-loss")
        with EventWriter(folder) as writer:
            writer.write("step", step=21, steps=40, loss=9.25)
        await settle(pilot)
        assert "step 21/40" in text(app, "#header") and "paused" in text(app, "#header")
        assert text(app, "#tile-loss") == before
        await settle(pilot, "space")
        assert "9.250" in text(app, "#tile-loss")


async def test_turning_to_another_run_goes_on_and_what_is_drawn_over_rests_while_paused(
    make_run: Make, open_app: Open
) -> None:
    make_run(40)
    other = make_run(60, name="other", upto=30)
    app = open_app(others=(Path("other"),))
    async with app.run_test(size=(140, 40)) as pilot:
        await settle(pilot, "space")
        with EventWriter(other) as writer:
            writer.write("step", step=31, steps=60, loss=9.25)
        await settle(pilot)
        assert app.overlays[0].state.step == 30
        await settle(pilot, "space")
        assert app.overlays[0].state.step == 31
        await settle(pilot, "space")
        app.watch_run(Path("other"))
        await settle(pilot)
        assert not app.paused and app.shown is app.snapshot
        assert "step 31/60" in text(app, "#header") and "9.250" in text(app, "#tile-loss")


@pytest.mark.parametrize("size", [(80, 24), (40, 12)], ids=["80x24", "40x12"])
async def test_a_small_terminal_has_the_next_command_whatever_else_it_tells(
    size: tuple[int, int], make_run: Make, open_app: Open
) -> None:
    name = "a-folder-of-a-long-name/" * 4 + "run"
    folder = make_run(40, upto=30, nan_at=30, name=name)
    app = open_app(folder)
    async with app.run_test(size=size) as pilot:
        for status, command in (("running", "tail -f"), ("failed", "kore train")):
            Run(folder).update(status=status, ended=NOW, message="loss is not a number")
            await settle(pilot)
            seen = text(app, "#banner").splitlines()[: app.screen.query_one("#banner").size.height]
            assert "loss is not a number at step 30" in "".join(seen)
            (line,) = [line for line in seen if "next:" in line]
            ending = "log.txt" if status == "running" else "/run"
            assert f"next: {command}" in line and ending in line


async def test_a_loss_that_is_not_a_number_is_told_in_a_banner(make_run: Make, open_app: Open) -> None:
    make_run(40, upto=30, nan_at=30)
    app = open_app()
    async with app.run_test(size=(120, 35)) as pilot:
        await settle(pilot)
        assert "loss is not a number at step 30" in text(app, "#banner")
        assert "not a number" in text(app, "#tile-loss")
        Run(Path("run")).update(started=NOW + 1)  # and it loads the model again
        await settle(pilot)
        assert "starting" in text(app, "#header") and not app.screen.query_one("#banner").display


async def test_a_run_that_lives_says_how_to_follow_it_and_when_it_last_spoke(
    make_run: Make, open_app: Open
) -> None:
    make_run(40, upto=30)
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot, "y")
        assert "last event" in text(app, "#about") and "tail -f run/log.txt" in text(app, "#about")
        assert app.clipboard == "tail -f run/log.txt"


async def test_a_dead_run_names_the_command_that_resumes_it_and_y_copies_it(
    make_run: Make, open_app: Open
) -> None:
    make_run(40, upto=30)
    app = open_app(alive=False)
    async with app.run_test(size=(120, 35)) as pilot:
        await settle(pilot, "y")
        assert "without an error" in text(app, "#banner")
        assert app.clipboard == "kore train tree/samples.jsonl -p tiny -o run"


@pytest.mark.parametrize("screen", ["1", *(pytest.param(s, marks=pytest.mark.slow) for s in "2345")])
async def test_no_size_between_200x60_and_30x8_breaks_a_screen(
    screen: str, make_run: Make, open_app: Open
) -> None:
    make_run(40)
    async with open_app().run_test(size=(200, 60)) as pilot:
        await settle(pilot, screen)
        for size in ((30, 8), (12, 3), (80, 24), (39, 40), (41, 9), (200, 10), (79, 19), (140, 40)):
            await pilot.resize_terminal(*size)
            await settle(pilot)
        assert pilot.app.is_running


async def test_texts_fit_their_panels_as_soon_as_the_terminal_has_another_size(
    make_run: Make, open_app: Open
) -> None:
    make_run(40)
    app = open_app()
    async with app.run_test(size=(200, 60)) as pilot:
        await settle(pilot)
        for size in ((80, 24), (140, 40)):
            await pilot.resize_terminal(*size)
            await pilot.pause(0.3)  # and no new event comes
            for name in ("#machine", "#counts", "#log", "#tile-loss"):
                room = app.screen.query_one(name).content_size.width
                widest = max(len(line) for line in text(app, name).splitlines())
                assert widest <= room, (size, name)
            assert max(map(len, text(app, "#machine").splitlines())) > 20


async def test_a_narrow_but_tall_terminal_has_a_chart_above_its_lines(make_run: Make, open_app: Open) -> None:
    make_run(40)
    app = open_app()
    async with app.run_test(size=(60, 40)) as pilot:
        await settle(pilot)
        assert (
            app.screen.query_one("#chart").size.height > 8 and app.screen.query_one("#chart").size.width > 50
        )
        assert "tok/s" in text(app, "#compact") and not app.screen.query_one("#side").display


async def test_a_tiny_terminal_shows_one_line_with_step_and_loss(make_run: Make, open_app: Open) -> None:
    make_run(40)
    app = open_app()
    async with app.run_test(size=(30, 8)) as pilot:
        await settle(pilot)
        assert not app.screen.query_one("#body").display
        line = text(app, "#line")
        assert "40" in line and "loss" in line


async def test_a_small_terminal_shows_sparklines_instead_of_charts(make_run: Make, open_app: Open) -> None:
    make_run(40)
    app = open_app()
    async with app.run_test(size=(40, 12)) as pilot:
        await settle(pilot)
        assert not app.screen.query_one("#upper").display
        assert any(block in text(app, "#compact") for block in "▂▃▄▅▆▇")


async def test_the_log_axis_toggles_and_keeps_drawing(make_run: Make, open_app: Open) -> None:
    make_run(40)
    app = open_app()
    async with app.run_test(size=(120, 35)) as pilot:
        await settle(pilot, "l")
        assert app.screen.query_one(Chart).log_y
        assert "log" in str(app.screen.query_one(Chart).border_title)
        await settle(pilot, "l", "m", "s")
        assert isinstance(app.screen, TrainScreen) and app.screen.metric == 1


async def test_zooming_changes_the_window_and_r_shows_the_whole_again(make_run: Make, open_app: Open) -> None:
    make_run(80)
    app = open_app()
    async with app.run_test(size=(120, 35)) as pilot:
        await settle(pilot)
        chart = app.screen.query_one(Chart)
        chart.focus()
        whole = (chart._x_min, chart._x_max)
        await settle(pilot, "plus", "plus", "left")
        assert chart.zoomed and (chart._x_max - chart._x_min) < (whole[1] - whole[0])
        await settle(pilot, "r")
        assert not chart.zoomed and (chart._x_min, chart._x_max) == whole


@pytest.mark.parametrize("keys", [("1",), ("1", "l"), ("2",)], ids=["plain", "log", "both log"])
async def test_zooming_out_ends_where_the_lines_would_be_lost(
    keys: tuple[str, ...], make_run: Make, open_app: Open
) -> None:
    make_run(80)
    app = open_app()
    async with app.run_test(size=(120, 35)) as pilot:
        await settle(pilot, *keys)
        chart = next(c for c in app.screen.query(Chart))
        whole = (chart._x_max - chart._x_min, chart._y_max - chart._y_min)
        await settle(pilot, *["minus"] * 60)
        for before, low, high in zip(
            whole, (chart._x_min, chart._y_min), (chart._x_max, chart._y_max), strict=True
        ):
            assert 8 < (high - low) / before < 12
        await settle(pilot, "r")
        assert chart._x_max - chart._x_min == whole[0]


async def test_other_runs_are_drawn_over_the_watched_one(make_run: Make, open_app: Open) -> None:
    make_run(40)
    make_run(60, name="other")
    app = open_app(others=(Path("other"),))
    async with app.run_test(size=(140, 40)) as pilot:
        await settle(pilot)
        assert [o.name for o in app.overlays] == ["other"]
        assert len(app.screen.query_one(Chart)._lines) == 4  # raw, other, held out, smoothed
        assert "other" in str(app.screen.query_one(Chart).border_subtitle)


async def test_a_covariance_named_beside_the_run_is_drawn_over_its_spectra(
    make_run: Make, open_app: Open, synthetic: ModuleType
) -> None:
    make_run(40)
    synthetic.spectra(Path("cov") / "spectra.json", "bench:POPE", 1.4)
    app = open_app(others=(Path("cov"),))
    async with app.run_test(size=(140, 40)) as pilot:
        await settle(pilot)
        assert "cov" not in str(app.screen.query_one(Chart).border_subtitle)  # it has no loss
        await settle(pilot, "2")
        chart = app.screen.query_one("#spectrum", Chart)
        assert [line.label for line in chart._lines] == ["onevision", "bench:MME", "bench:POPE"]
        assert "bench:POPE" in text(app, "#facts")


async def test_the_list_of_runs_switches_and_overlays(
    make_run: Make, open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORE_HOME", "home")
    make_run(40, name="home/a")
    make_run(60, name="home/b")
    app = open_app(Path("home/a"))
    async with app.run_test(size=(120, 35)) as pilot:
        await settle(pilot, "o")
        assert isinstance(app.screen, RunsScreen)
        options = app.screen.query_one(OptionList)
        assert {o.id for o in options.options} == {"home/a", "home/b"}
        options.highlighted = [o.id for o in options.options].index("home/b")
        await settle(pilot, "space")
        assert [o.folder for o in app.others] == [Path("home/b")]
        await settle(pilot, "enter")
        assert app.source.folder == Path("home/b") and not app.others


async def test_answers_walk_back_through_checkpoints_and_count_what_was_forgotten(
    make_run: Make, open_app: Open
) -> None:
    make_run(100)
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot, "3")
        assert "4 of 4 adapted" in text(app, "#tally") and "0 forgotten" in text(app, "#tally")
        for _ in range(4):
            await pilot.press("[")
        await settle(pilot)
        assert "at step 60" in text(app, "#tally") and "1 forgotten" in text(app, "#tally")
        assert isinstance(app.screen, AnswersScreen)
        for _ in range(6):
            await pilot.press("]")
        await settle(pilot)
        assert "now" in text(app, "#tally")


async def test_the_filter_narrows_the_questions_and_escape_clears_it(make_run: Make, open_app: Open) -> None:
    make_run(100)
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot, "3", "slash", *"old", "enter")
        options = app.screen.query_one("#probes", OptionList)
        assert options.option_count == 4
        await settle(pilot, "escape")
        assert options.option_count == 8 and app.screen.query_one("#filter", Input).value == ""


async def test_keys_typed_into_the_filter_do_not_act(make_run: Make, open_app: Open) -> None:
    make_run(40)
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot, "slash", "q", "2", "space", "t")
        assert app.is_running and isinstance(app.screen, TrainScreen) and not app.paused
        assert app.screen.query_one("#filter", Input).value == "q2 t"


async def test_rejected_records_show_their_reasons(make_run: Make, open_app: Open) -> None:
    make_run(40)
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot, "5")
        assert "What is the capital of Fiji?" in text(app, "#tree")
        await settle(pilot, "x")
        assert "the item's text does not say so" in text(app, "#tree")


async def test_results_show_the_change_against_the_base(make_run: Make, open_app: Open) -> None:
    make_run(40)
    app = open_app()
    async with app.run_test(size=(120, 60)) as pilot:
        await settle(pilot, "4")
        table = text(app, "#table")
        assert "adaptation" in table and "▲ 67.6" in table and "▼  0.4" in table
        await settle(pilot, "d")
        assert "politics" not in text(app, "#table")


async def test_scores_that_an_evaluation_wrote_beside_the_run_are_found(
    make_run: Make, open_app: Open
) -> None:
    make_run(40, upto=20, name="demo/kore")
    suite = {
        "headline": 40.0,
        "headline_name": "accuracy",
        "role": "retention",
        "counts": {"samples": 12},
        "metrics": {"accuracy": 40.0, "type.shape": 25.0},
    }
    scores = Path("demo/eval/scores")
    scores.mkdir(parents=True)
    (scores / "base.json").write_text(json.dumps({"label": "base", "suites": {"easy-vqa": suite}}))
    app = open_app(Path("demo/kore"))
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot, "4")
        table = text(app, "#table")
        assert "easy-vqa" in table and "40.0" in table and "shape" in table and "12 questions" in table


async def test_csv_holds_every_metric_by_step(make_run: Make, open_app: Open) -> None:
    make_run(40)
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot, "e")
    (path,) = Path().glob("run-train-*.csv")
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 40 and float(rows[0]["loss"]) > float(rows[-1]["loss"])


async def test_svg_export_writes_a_picture_of_the_screen(make_run: Make, open_app: Open) -> None:
    make_run(40)
    async with open_app().run_test(size=(100, 30)) as pilot:
        await settle(pilot, "f8")
    (path,) = Path().glob("run-train-*.svg")
    assert path.read_text(encoding="utf-8").startswith("<svg")


THEMES = [
    "ansi-dark",
    *(pytest.param(t, marks=pytest.mark.slow) for t in ("kore-light", "ansi-light", "nord")),
]


@pytest.mark.parametrize("theme", THEMES)
async def test_every_screen_draws_under_other_themes(theme: str, make_run: Make, open_app: Open) -> None:
    make_run(40)
    app = open_app(theme=theme)
    async with app.run_test(size=(120, 35)) as pilot:
        await settle(pilot, *"12345")
        assert app.theme == theme


async def test_broken_files_in_the_run_folder_are_told_and_do_not_end_the_app(
    make_run: Make, open_app: Open
) -> None:
    folder = make_run(40)
    (folder / "spectra.json").write_text("{broken")
    with (folder / "events-0001.jsonl").open("ab") as stream:
        stream.write(b"\xff\xfe not json\n[1, 2]\n")
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert "spectra.json" in text(app, "#banner")
        assert app.snapshot is not None and app.snapshot.bad_lines == 2


async def test_the_command_palette_offers_screens_and_sites(make_run: Make, open_app: Open) -> None:
    make_run(40)
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot, "ctrl+p")
        for key in "spectra":
            await pilot.press(key)
        await pilot.pause(0.5)
        await pilot.press("down", "enter")
        await pilot.pause(0.3)
        assert type(app.screen).__name__ == "SpectraScreen"


async def test_without_a_name_the_next_run_is_turned_to_once_this_one_is_over(
    make_run: Make, open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORE_HOME", "home")
    make_run(40, name="home/first", upto=20)
    app = open_app(None)
    clock = [0.0]
    app.source._clock = lambda: NOW + clock[0]
    async with app.run_test(size=(120, 35)) as pilot:
        await settle(pilot)
        make_run(40, name="home/second", upto=10)
        clock[0] = 5.0
        await settle(pilot)
        assert app.source.folder == Path("home/first")
        Run(Path("home/first")).update(status="finished", ended=NOW)
        later = Path("home/first/run.json").stat().st_mtime + 5  # two writes may share one tick of the clock
        os.utime("home/second/run.json", (later, later))
        for clock[0] in (10.0, 15.0, 20.0, 25.0, 30.0, 35.0):
            await settle(pilot)
        assert app.source.folder == Path("home/second") and "step 10/40" in text(app, "#header")
