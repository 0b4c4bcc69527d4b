"""Choose an image by its path, with completion and a preview."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.suggester import Suggester
from textual.widgets import Input

from kore_cli.chat.paths import SUFFIXES, as_picture
from kore_cli.widgets.image import Picture


class PathSuggester(Suggester):
    """Completes the name of a folder or image."""

    def __init__(self) -> None:
        super().__init__(use_cache=False, case_sensitive=True)

    async def get_suggestion(self, value: str) -> str | None:
        """The first path that starts with the typed text."""
        try:
            typed = Path(value).expanduser()
            folder, start = (typed, "") if value.endswith("/") else (typed.parent, typed.name)
            names = sorted(
                p for p in folder.iterdir() if p.name.startswith(start) and not p.name.startswith(".")
            )
        except (OSError, ValueError, RuntimeError):
            return None
        for path in names:
            if path.is_dir() or path.suffix.lower() in SUFFIXES:
                rest = path.name[len(start) :] + ("/" if path.is_dir() else "")
                return value + rest if rest else None
        return None


class PictureScreen(ModalScreen[str | None]):
    """Returns an image's path, an empty text for none, or None when left."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "leave", "Leave")]

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def compose(self) -> ComposeResult:
        """A field and a preview."""
        with Vertical(id="picker") as box:
            box.border_title = "picture"
            box.border_subtitle = "→ completes · Enter takes · empty for none · Escape leaves"
            yield Input(
                self._path, placeholder="path of a picture", suggester=PathSuggester(), id="picker-path"
            )
            yield Picture(id="picker-preview")

    def on_mount(self) -> None:
        """Show the current choice."""
        self.query_one("#picker-preview", Picture).show(self._path or None)

    @on(Input.Changed, "#picker-path")
    def _changed(self, event: Input.Changed) -> None:
        event.stop()
        self.query_one("#picker-preview", Picture).show(as_picture(event.value))

    @on(Input.Submitted, "#picker-path")
    def _taken(self, event: Input.Submitted) -> None:
        event.stop()
        path = as_picture(event.value)
        if path is None and event.value.strip():
            self.notify(f"no picture there: {event.value.strip()}", severity="warning", timeout=3)
            return
        self.dismiss(path or "")

    def action_leave(self) -> None:
        """Change nothing."""
        self.dismiss(None)
