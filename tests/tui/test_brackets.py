"""What users and models write is shown as it is: brackets are never markup."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from textual.widgets import Input, Tree
from textual.widgets._toast import Toast

from kore.artifacts.events import EventWriter
from kore.artifacts.run import Run
from kore_cli.chat.app import ChatApp
from kore_cli.dashboard.app import KoreApp
from kore_cli.widgets.chart import Chart
from tests.tui.test_behaviour import settle, text

Make, Open = Callable[..., Path], Callable[..., KoreApp]


async def test_markup_in_a_run_is_shown_as_it_is(make_run: Make, open_app: Open) -> None:
    folder = make_run(40, upto=10)
    with EventWriter(folder) as writer:
        writer.write("warning", step=10, text="odd [red]brackets[/] and [link=x]")
        writer.write("probe", step=10, id="[b]", probe_kind="new", question="[/nope]", base="[x", tuned="y]")
    Run(folder).log.write_text("[bold]log[/bold] [\n")
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert "[bold]log[/bold] [" in text(app, "#log") and "odd [red]brackets[/]" in text(app, "#log")
        await settle(pilot, "3", "slash", *"nope", "enter")
        assert "[/nope]" in text(app, "#question")


async def test_brackets_in_a_filter_are_shown_as_they_are(make_run: Make, open_app: Open) -> None:
    make_run(40)
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        for screen in "1234":
            await settle(pilot, screen)
            for typed in ("[/", "[red]"):
                app.screen.query_one("#filter", Input).value = typed
                await pilot.pause()
                title = str(app.screen.query_one("#log").border_title) if screen == "1" else ""
                assert typed in (title or text(app, "#nothing"))


async def test_brackets_in_a_message_are_shown_as_they_are(make_run: Make, open_app: Open) -> None:
    folder = make_run(40)
    with EventWriter(folder) as writer:
        writer.write("probe", step=40, id="[b]", probe_kind="new", question="[/INST]", base="b", tuned="[/]")
    app = open_app()
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await settle(pilot, "3", "slash", *"inst", "enter", "y")
        app.screen.notify("[/] from a widget")
        await pilot.pause()
        told = [str(toast.render()) for toast in app.screen.query(Toast)]
        assert any("[/INST]" in words for words in told) and "[/] from a widget" in told


async def test_brackets_in_the_name_of_a_site_are_shown_as_they_are(make_run: Make, open_app: Open) -> None:
    folder = make_run(40)
    sites = [{"name": "[/]a", "eigenvalues": [2.0, 1.0]}, {"name": "[b]", "eigenvalues": [2.0, 1.0]}]
    Run(folder).spectra.write_text(json.dumps({"label": "[/]", "sites": sites}))
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot, "2")
        assert "[/]a" in str(app.screen.query_one(Chart).border_title)
        assert [str(leaf.label) for leaf in app.screen.query_one(Tree).root.children] == ["[/]a", "[b]"]


def test_the_chat_tells_messages_like_the_dashboard() -> None:
    assert ChatApp.notify is KoreApp.notify
