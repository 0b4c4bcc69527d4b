"""Images in a terminal: two pixels a cell with half blocks, loaded in a thread."""

from __future__ import annotations

import contextlib
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.segment import Segment
from rich.style import Style
from textual.app import ComposeResult, RenderResult
from textual.content import Content
from textual.geometry import Size
from textual.strip import Strip
from textual.widget import Widget
from textual.worker import get_current_worker

from kore.errors import DataError

if TYPE_CHECKING:
    from PIL import Image


def prepare(images: str) -> None:
    """Query the terminal's image protocol, which must happen before the app starts.

    Needs the optional textual-image; without it, or with `images` not auto, images are half blocks.
    """
    if images != "auto":
        return
    with contextlib.suppress(ImportError, OSError):
        importlib.import_module("textual_image.widget")


def terminal_widget() -> type[Widget] | None:
    """The widget for the terminal's protocol (kitty, sixel), if `prepare` detected one."""
    renderable = sys.modules.get("textual_image.renderable")
    widget = sys.modules.get("textual_image.widget")
    if renderable is None or widget is None:
        return None
    if renderable.Image not in (renderable.TGPImage, renderable.SixelImage):
        return None
    image_widget: type[Widget] = widget.Image
    return image_widget


def half_blocks(path: Path, width: int, height: int) -> list[Strip]:
    """The image scaled into `width` x `height` cells, with its proportions.

    Raises:
        DataError: missing, broken, unsupported or too large.
    """
    from PIL import Image

    from kore.io.images import open_image

    picture = open_image(path, about=(4 * width, 4 * height))
    scale = min(width / picture.width, 2 * height / picture.height)
    size = max(1, round(picture.width * scale)), max(2, round(picture.height * scale / 2) * 2)
    pixels = picture.resize(size, Image.Resampling.LANCZOS).load()
    assert pixels is not None
    strips = []
    for y in range(0, size[1], 2):
        cells = []
        for x in range(size[0]):
            top, bottom = pixels[x, y], pixels[x, y + 1]
            assert isinstance(top, tuple) and isinstance(bottom, tuple)
            style = Style(color=_hex(top), bgcolor=_hex(bottom))
            cells.append(Segment("▀", style))
        strips.append(Strip(Segment.simplify(cells), size[0]))
    return strips


def _hex(pixel: tuple[float, ...]) -> str:
    return "#" + "".join(f"{int(level):02x}" for level in pixel[:3])


class Picture(Widget):
    """A picture by path, or one line that says why there is none."""

    DEFAULT_CSS = """
    Picture { width: 1fr; height: 1fr; align: center middle; }
    Picture > * { width: auto; height: 100%; max-width: 100%; display: none; }
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._path: str | None = None
        self._strips: list[Strip] = []
        self._key: object = None
        self._words = ""
        self._better: Any = None

    def compose(self) -> ComposeResult:
        """The widget for the terminal's protocol, if it has one."""
        kind = terminal_widget() if getattr(self.app, "images", "auto") == "auto" else None
        if kind is not None:
            self._better = kind()
            yield self._better

    def show(self, path: str | None) -> None:
        """Show an image; None clears."""
        self._path = path
        self._load()

    def on_resize(self) -> None:
        """Scale again."""
        self._load()

    def _load(self) -> None:
        size = self.content_size
        key = (self._path, size)
        if key == self._key or not size.width or not size.height:
            return
        self._key = key
        if self._better is not None:
            self._better.display = False
        if getattr(self.app, "images", "auto") == "off" or not self._path:
            self._set(key, [], f"picture: {self._path}" if self._path else "")
            return
        path = self._path
        if "://" in path:
            self._set(key, [], path)
            return
        self.run_worker(lambda: self._read(key, path, size), thread=True, exclusive=True, group="picture")

    def _read(self, key: object, path: str, size: Size) -> None:
        from kore.io.images import open_image

        strips: list[Strip] = []
        words = ""
        picture = None
        try:
            if self._better is not None:
                picture = open_image(path)
            else:
                strips = half_blocks(Path(path), size.width, size.height)
        except DataError as error:
            missing = isinstance(error.__cause__, FileNotFoundError)
            reason = error.message.removesuffix(f": {path}")
            words = f"{Path(path).name}: {'not there' if missing else f'{reason} ({error.hint})'}"
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self._set, key, strips, words, picture)

    def _set(self, key: object, strips: list[Strip], words: str, picture: Image.Image | None = None) -> None:
        """Show what was read, unless another image was requested meanwhile."""
        if key != self._key:
            return
        self._strips, self._words = strips, words
        if picture is not None:
            self._better.image = picture
            self._better.display = True
        self.refresh()

    def render(self) -> RenderResult:
        """The text shown in place of an image."""
        return Content.styled(self._words, "$foreground 50%")

    def render_line(self, y: int) -> Strip:
        """One line of the image, centred."""
        if not self._strips:
            return super().render_line(y)
        width, height = self.size
        base = self.rich_style
        top = max(0, (height - len(self._strips)) // 2)
        if not top <= y < top + len(self._strips):
            return Strip.blank(width, base)
        strip = self._strips[y - top]
        left = max(0, (width - strip.cell_length) // 2)
        right = max(0, width - left - strip.cell_length)
        return Strip([Segment(" " * left, base), *strip, Segment(" " * right, base)], width)
