"""Pictures: what cannot be drawn is told in a line, and each is drawn beside its own question."""

from __future__ import annotations

import struct
import threading
import zlib
from pathlib import Path

import pytest
from PIL import Image
from textual.app import App, ComposeResult

from kore_cli.widgets import image as pictures
from kore_cli.widgets.image import Picture


def chunk(name: bytes, data: bytes) -> bytes:
    """A part of a PNG file."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, data: bytes) -> bytes:
    """A PNG file that says how large it is, and then holds `data`."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + data


class Page(App[None]):
    """One picture."""

    images = "blocks"

    def compose(self) -> ComposeResult:
        """The picture."""
        yield Picture(id="picture")


async def tells(path: Path, words: str) -> None:
    """Show a picture, and find these words in its place."""
    app = Page()
    async with app.run_test(size=(60, 10)) as pilot:
        shown = app.query_one(Picture)
        shown.show(str(path))
        await pilot.pause()
        await app.workers.wait_for_complete()
        assert words in str(shown.render()) and app.is_running


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (png(30_000, 30_000, chunk(b"IDAT", b"")), "too large a picture"),
        (png(8_000, 8_000, chunk(b"IDAT", b"")), "too large a picture (make it smaller"),
        (png(8, 8, chunk(b"tRNS", b"")), "Truncated tRNS chunk"),
        (b"no picture", "broken picture (not an image"),
    ],
    ids=["bomb", "large", "broken", "text"],
)
async def test_a_picture_that_cannot_be_drawn_is_told_and_ends_nothing(
    data: bytes, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(data)
    await tells(path, words)


async def test_a_picture_that_breaks_while_it_is_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object) -> None:
        raise SyntaxError("broken PNG file")

    path = tmp_path / "x.png"
    Image.new("RGB", (8, 8), "red").save(path)
    monkeypatch.setattr(Image.Image, "convert", breaks)
    await tells(path, "x.png: broken picture")


@pytest.mark.parametrize("then", [None, "https://example.org/y.png"], ids=["none", "address"])
async def test_a_picture_that_comes_late_is_not_drawn_beside_another_question(
    then: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, go_on, draw = tmp_path / "x.png", threading.Event(), pictures.half_blocks
    Image.new("RGB", (8, 8), "red").save(path)

    def slow(*arguments: object) -> object:
        go_on.wait(10)
        return draw(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pictures, "half_blocks", slow)
    app = Page()
    async with app.run_test(size=(60, 10)) as pilot:
        shown = app.query_one(Picture)
        await pilot.pause()
        shown.show(str(path))
        shown.show(then)
        go_on.set()
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert not shown._strips and str(shown.render()) == (then or "")
        shown.show(str(path))
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert shown._strips
