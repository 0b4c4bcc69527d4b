"""The screens in detail: what is chosen, filtered, enlarged, and what small terminals show."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.widgets import OptionList, Tree

from kore.artifacts.run import Run
from kore_cli.dashboard.app import KoreApp
from kore_cli.screens.runs import RunsScreen
from kore_cli.screens.spectra import SpectraScreen
from kore_cli.widgets.chart import Chart
from kore_cli.widgets.heatmap import HeatMap, averaged
from kore_cli.widgets.themes import palette
from tests.tui.test_behaviour import settle, text

Make, Open = Callable[..., Path], Callable[..., KoreApp]


@pytest.mark.parametrize("key", ["e", "f8"])
async def test_an_export_that_cannot_be_written_is_told(
    key: str, make_run: Make, open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(20)
    app = open_app()
    # as it is for a user who may not write here; who runs the tests may be allowed everything
    monkeypatch.setattr(app, "_export_name", lambda suffix: Path("/proc/nothing") / f"x.{suffix}")
    async with app.run_test(size=(120, 35), notifications=True) as pilot:
        await settle(pilot, key)
        (told,) = app._notifications
        assert told.title == "not written" and told.severity == "error" and app.is_running


async def test_space_pauses_and_the_chart_obeys_its_keys_while_the_tree_has_the_focus(
    make_run: Make, open_app: Open
) -> None:
    make_run(20)
    app = open_app()
    async with app.run_test(size=(140, 40)) as pilot:
        await settle(pilot, "2")
        assert isinstance(app.focused, Tree)
        chart = app.screen.query_one(Chart)
        await settle(pilot, "space", "plus", "right")
        assert app.paused and chart.zoomed
        await settle(pilot, "r", "space")
        assert not app.paused and not chart.zoomed


async def test_the_tree_marks_the_site_that_is_drawn(make_run: Make, open_app: Open) -> None:
    make_run(20)
    app = open_app()
    async with app.run_test(size=(140, 40)) as pilot:
        await settle(pilot, "2")
        screen, tree = app.screen, app.screen.query_one(Tree)
        assert isinstance(screen, SpectraScreen)

        def marked() -> str | None:
            return tree.cursor_node.data if tree.cursor_node else None

        assert marked() == screen._site == "layers.0.attn.qkv"
        screen.jump("layers.2.mlp.up")
        await settle(pilot)
        assert marked() == screen._site == "layers.2.mlp.up"
        await settle(pilot, "slash", *"layers.3.attn.o", "enter")
        assert marked() == screen._site == "layers.3.attn.o"
        screen.jump("layers.2.mlp.up")  # which the filter hides
        await settle(pilot)
        assert marked() == screen._site == "layers.2.mlp.up"
        screen.jump("layers.3.attn.o")
        await settle(pilot, "escape", "tab", "tab")
        assert marked() == screen._site == "layers.3.attn.o"


@pytest.mark.parametrize(("screen", "box"), [("4", "results"), ("3", "history-box"), ("5", "tree-box")])
async def test_scrolling_texts_can_be_enlarged(screen: str, box: str, make_run: Make, open_app: Open) -> None:
    make_run(40)
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot, screen)
        app.screen.query_one(f"#{box}").focus()
        await settle(pilot, "z")
        assert app.screen.maximized is app.screen.query_one(f"#{box}")
        assert app.screen.query_one(f"#{box}").size.height > 25
        await settle(pilot, "z")
        assert app.screen.maximized is None


@pytest.mark.parametrize("screen", ["2", "3", "4"])
async def test_a_filter_without_a_match_says_so_and_escape_shows_all_again(
    screen: str, make_run: Make, open_app: Open
) -> None:
    make_run(40)
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot, screen, "slash", *"qqq")
        assert "nothing matches 'qqq' · Escape clears" in text(app, "#nothing")
        panels = "#results, #columns"
        assert not any(p.display for p in app.screen.query(panels))
        await settle(pilot, "escape")
        assert all(p.display for p in app.screen.query(panels))
        assert not app.screen.query_one("#nothing").display


async def test_a_tiny_terminal_has_one_line_also_when_the_run_has_failed(
    make_run: Make, open_app: Open
) -> None:
    make_run(40, status="failed")
    app = open_app()
    async with app.run_test(size=(30, 8)) as pilot:
        await settle(pilot)
        assert not app.screen.query_one("#banner").display
        assert "failed" in text(app, "#line")


async def test_a_small_terminal_shows_whole_names_one_tally_and_the_way_out(
    make_run: Make, open_app: Open
) -> None:
    make_run(100)
    app = open_app()
    async with app.run_test(size=(40, 12)) as pilot:
        await settle(pilot, "1")
        assert "ETA" in text(app, "#compact") and "saved" in text(app, "#compact")
        keys = [(k.action, k.region) for k in app.screen.query("FooterKey").results()]
        assert [a for a, _ in keys[:2]] == ["help", "quit"]
        assert all(region.right <= 40 and region.width for _, region in keys[:2])
        await settle(pilot, "3")
        assert len(text(app, "#tally")) <= 40 and "kept" in text(app, "#tally")
        assert any(sign in str(app.screen.query_one("#tuned").border_title) for sign in "✔✖")
        await settle(pilot, "4")
        table = text(app, "#table")
        assert "politics" in table and "…" not in table
        assert max(map(len, table.splitlines())) <= app.screen.query_one("#table").size.width


async def test_the_list_of_runs_marks_the_watched_one_however_it_was_named(
    make_run: Make, open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORE_HOME", "home")
    make_run(20, name="home/a")
    app = open_app(Path("home/a").resolve())
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot, "o")
        options = app.screen.query_one(OptionList)
        (line,) = [str(o.prompt) for o in options.options]
        assert line.startswith("▶ a") and options.virtual_size.height == 1  # and it does not wrap
        await settle(pilot, "space")
        assert not app.others


async def test_the_mark_in_the_list_of_runs_stays_on_its_run_when_another_appears(
    make_run: Make, open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORE_HOME", "home")
    make_run(20, name="home/a")
    app = open_app(Path("home/a"))
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot, "o")
        make_run(20, name="home/new")
        os.utime("home/a/run.json", (1, 1))
        assert isinstance(app.screen, RunsScreen)
        app.screen._list()
        await settle(pilot)
        options = app.screen.query_one(OptionList)
        assert options.option_count == 2 and options.highlighted == 1
        assert options.get_option_at_index(1).id == "home/a"


def test_a_heat_map_with_too_little_room_shows_means_and_drops_no_row() -> None:
    rows = [[float(i), 1.0] for i in range(32)]
    rows[5][1] = math.nan
    means = averaged(rows, 24)
    assert len(means) == 24 and sum(m[0] for m in means) / 24 == pytest.approx(15.5)
    assert {m[1] for m in means} == {1.0}
    assert averaged(rows, 32) is rows


async def test_a_theme_of_sixteen_colours_has_no_others(make_run: Make, open_app: Open) -> None:
    make_run(20)
    app = open_app(theme="ansi-dark")
    async with app.run_test(size=(140, 40)) as pilot:
        await settle(pilot, "2")
        heat = app.screen.query_one(HeatMap)
        cells = [s for y in range(heat.size.height) for s in heat.render_line(y) if s.text.strip()]
        used = {c for s in cells if s.style for c in (s.style.color, s.style.bgcolor) if c}
        assert len(used) > 3 and all(c.is_system_defined for c in used)
        assert heat.size.height == 16  # two rows a line
        shade = palette(app.current_theme).shade.removeprefix("on ")
        legend = app.screen.query_one("#spectrum", Chart).border_subtitle
        assert f"ansi_{shade}" in str(legend)


async def test_the_facts_of_two_covariances_are_whole_in_a_common_terminal(
    make_run: Make, open_app: Open
) -> None:
    make_run(20)
    app = open_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot, "2")
        rows = text(app, "#facts").splitlines()
        assert len(rows) <= app.screen.query_one("#facts").content_size.height
        assert any("on held-out" in row for row in rows)
        await settle(pilot, "h")
        assert app.screen.query_one(HeatMap).display
        rows = text(app, "#facts").splitlines()
        assert "…" not in "".join(rows) and any(r.split() == ["adapter", "rank", "40"] for r in rows)


async def test_the_watched_run_is_named_beside_those_drawn_over_it(make_run: Make, open_app: Open) -> None:
    make_run(40)
    make_run(60, name="other")
    app = open_app(others=(Path("other"),))
    async with app.run_test(size=(140, 40)) as pilot:
        await settle(pilot, "s", "s")
        legend = str(app.screen.query_one(Chart).border_subtitle)
        assert "run" in legend and "other" in legend and "raw" not in legend


async def test_the_log_goes_on_with_what_the_events_tell(make_run: Make, open_app: Open) -> None:
    folder = make_run(100, upto=60)
    Run(folder).log.write_text("memory per device: 3 GiB\n")
    app = open_app()
    async with app.run_test(size=(140, 40)) as pilot:
        await settle(pilot)
        log = text(app, "#log")
        assert "memory per device" in log and "checkpoint written" in log.splitlines()[-1]


async def test_another_run_begins_at_its_newest_answers(make_run: Make, open_app: Open) -> None:
    make_run(100)
    make_run(100, name="other")
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot, "3", "[", "[")
        assert "at step" in text(app, "#tally")
        app.watch_run(Path("other"))
        await settle(pilot)
        assert "now" in text(app, "#tally")
