"""Texts that say the same again cost nothing; only those that need another size are laid out."""

from __future__ import annotations

from textual.app import App, ComposeResult
from textual.content import Content

from kore_cli.screens.parts import Still


class Page(App[None]):
    CSS = "#free { height: auto; } #firm { height: 2; width: 1fr; }"

    def compose(self) -> ComposeResult:
        yield Still(id="free")
        yield Still(id="firm")


async def test_only_what_changes_is_drawn_and_only_another_size_is_laid_out() -> None:
    app = Page()
    async with app.run_test(size=(40, 10)) as pilot:
        asked: list[tuple[str | None, bool]] = []
        free, firm = app.query_one("#free", Still), app.query_one("#firm", Still)
        for still in (free, firm):
            still.update(Content("one"))
        await pilot.pause()
        for still in (free, firm):
            refresh = still.refresh

            def told(*regions, layout=False, _id=still.id, _refresh=refresh, **options):  # type: ignore[no-untyped-def]
                asked.append((_id, layout))
                return _refresh(*regions, layout=layout, **options)

            still.refresh = told  # type: ignore[method-assign]
            still.update(Content("one"))
        assert asked == []
        free.update(Content.styled("one", "bold"))
        firm.update(Content("two\nlines\nand more"))
        assert asked == [("free", False), ("firm", False)]
        free.update(Content("two\nlines"))
        assert ("free", True) in asked
        await pilot.pause()
        assert free.size.height == 2


async def test_a_frames_words_are_written_once() -> None:
    app = Page()
    async with app.run_test(size=(40, 10)):
        still = app.query_one("#free", Still)
        still.entitle("run", "next")
        assert (still.border_title, still.border_subtitle) == ("run", "next")
        still.border_title = "other"
        still.entitle("run", "next")
        assert still.border_title == "other"
        still.entitle("run")
        assert (still.border_title, still.border_subtitle) == ("run", "")
