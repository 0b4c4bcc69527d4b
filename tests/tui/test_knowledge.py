"""The Knowledge screen while trees grow, are rewritten or are of another run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.widgets import OptionList

from kore_cli.dashboard import tree_index as library
from kore_cli.dashboard.app import KoreApp
from kore_cli.dashboard.tree_index import Entry, Index
from kore_cli.screens.knowledge import KnowledgeScreen, place
from tests.tui.test_behaviour import settle, text

Make, Open = Callable[..., Path], Callable[..., KoreApp]


async def test_trees_that_are_rewritten_while_they_are_browsed_are_read_anew(
    make_run: Make, open_app: Open
) -> None:
    make_run(20)
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot, "5")
        before = text(app, "#item")
        path = next(Path().glob("**/tree.jsonl"))
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(["\n" * 7, *reversed(lines)]))
        os.utime(path, ns=(1, 1))
        await pilot.press("down")
        await settle(pilot)
        # the item that was moved to, at its new place
        assert app.is_running and text(app, "#item").startswith("Niger")
        await settle(pilot, "down")
        assert text(app, "#item") == before


async def test_y_copies_the_item_that_is_shown(make_run: Make, open_app: Open) -> None:
    make_run(20)
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot, "5", "y")
        assert app.clipboard.startswith("Fiji") and "What is the capital of Fiji?" in app.clipboard


async def test_the_cursor_moves_while_the_trees_grow(make_run: Make, open_app: Open) -> None:
    make_run(20)
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot, "5")
        path = next(Path().glob("**/tree.jsonl"))
        items = app.screen.query_one("#items", OptionList)

        async def grow(*keys: str) -> None:
            with path.open("a") as stream:
                stream.write(json.dumps({"item": {"title": "Fiji", "type": "country"}}) + "\n")
            for key in keys:  # before the screen has seen it
                await pilot.press(key)
            await settle(pilot)

        for at in (1, 2):
            await grow("down")
            assert items.highlighted == at
        assert text(app, "#item").startswith("Latvia") and items.option_count == 10
        await settle(pilot, "end")
        await grow()
        assert items.highlighted == 9  # and not the first of that title


def test_a_record_is_found_again_by_its_place_and_then_by_its_title() -> None:
    def entry(offset: int, title: str) -> Entry:
        return Entry(Path("t"), offset, title, "")

    entries = [entry(0, "a"), entry(5, "b"), entry(9, "b")]
    assert place(entry(9, "b"), entries) == 2
    assert place(entry(7, "b"), entries) == 1
    assert place(entry(5, "a"), entries) == 0  # another record has its place
    assert place(entry(5, "c"), entries) == place(None, entries) == 0


async def test_an_index_is_read_to_its_end_before_the_next_begins(make_run: Make, open_app: Open) -> None:
    class Busy:
        is_finished = False

    make_run(20)
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot, "5")
        screen = app.screen
        assert isinstance(screen, KnowledgeScreen)
        path = next(Path().glob("**/tree.jsonl"))
        os.utime(path, ns=(1, 1))
        screen._worker, before = Busy(), screen._stamp  # type: ignore[assignment]
        await settle(pilot)
        assert screen._stamp == before
        screen._worker = None
        await settle(pilot)
        assert screen._stamp != before


async def test_a_run_without_trees_has_nothing_of_the_run_before(make_run: Make, open_app: Open) -> None:
    make_run(20)
    bare = make_run(20, name="bare")
    run = json.loads((bare / "run.json").read_text())
    (bare / "run.json").write_text(json.dumps(run | {"inputs": {}}))
    for path in bare.glob("**/*.jsonl"):
        if not path.name.startswith("events"):
            path.unlink()
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot, "5")
        assert isinstance(app.screen, KnowledgeScreen) and app.screen.table()[1]
        app.watch_run(bare)
        await settle(pilot, "y", "e")
        assert "no knowledge trees: this run" in text(app, "#nothing")
        assert not app.screen.table()[1] and not list(Path().glob("*.csv"))
        assert "Fiji" not in app.clipboard
        app.watch_run(Path("run"))
        await settle(pilot)
        await settle(pilot)
        assert text(app, "#item").startswith("Fiji")


ITEM = {"title": "Odd", "type": "country"}


@pytest.mark.parametrize(
    "odd",
    [
        {"item": ITEM | {"facts": ["x"]}},
        {"item": ITEM, "trunk": {"question": "?"}},
        {"item": ITEM, "branches": ["?"]},
        {"item": ITEM, "trunk": 5},
        {"item": ITEM, "trunk": [{"made": "x"}]},
    ],
    ids=str,
)
async def test_a_record_that_is_not_as_it_should_be_is_told(
    odd: dict[str, object], make_run: Make, open_app: Open
) -> None:
    make_run(20)
    next(Path().glob("**/tree.jsonl")).write_text(json.dumps(odd) + "\n")
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot, "5")
        assert app.is_running and text(app, "#item") == "Odd" and "unreadable" in text(app, "#tree")


async def test_lines_that_hold_no_record_are_counted(make_run: Make, open_app: Open) -> None:
    make_run(20)
    deep = "[" * 100_000
    next(Path().glob("**/tree.jsonl")).write_text(
        f'{deep}\n[]\n\n{json.dumps({"item": ITEM})}\n{{"x": {deep}'
    )
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot, "5")
        items = app.screen.query_one("#items", OptionList)
        assert items.option_count == 1 and items.border_subtitle == "1, 2 lines unreadable"


def test_of_a_file_that_grew_only_what_is_new_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[bytes] = []
    one = library._record
    monkeypatch.setattr(library, "_record", lambda line: read.append(line) or one(line))
    path, lines = tmp_path / "tree.jsonl", [json.dumps({"title": f"t{i}" * 40}) + "\n" for i in range(9)]

    def write(text: str) -> list[str]:
        nonlocal index
        path.write_text(text)
        read.clear()
        index = index.grown()
        return [e.title[:2] for e in index.entries]

    index = Index(path).grown()
    assert write("".join(lines[:3])) == ["t0", "t1", "t2"]
    assert write("".join(lines[:3]) + lines[3][:20]) == ["t0", "t1", "t2"] and len(read) == 1
    assert write("".join(lines[:5])) == ["t0", "t1", "t2", "t3", "t4"] and len(read) == 2
    assert write("".join(lines[:2])) == ["t0", "t1"]  # shorter
    assert write("".join(lines[5:9])) == ["t5", "t6", "t7", "t8"]  # another file
    path.unlink()
    assert index.grown() == Index(path)
