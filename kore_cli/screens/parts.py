"""Small widgets that screens share: boxes that can be enlarged, a footer that names the way out first."""

from __future__ import annotations

from textual import events
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Footer
from textual.widgets._footer import FooterKey

FIRST = ("help", "quit")


class Box(VerticalScroll):
    """A scrolling text that `z` enlarges."""

    ALLOW_MAXIMIZE = True


class KeyBar(Footer):
    """The footer; where not all keys have room, help and leaving come first."""

    def __init__(self) -> None:
        super().__init__(show_command_palette=False, compact=True)
        self._needed, self._narrow = 0, False

    def compose(self) -> ComposeResult:
        """The keys, in another order when narrow."""
        keys = [k for k in super().compose() if isinstance(k, FooterKey)]
        self._needed = sum(len(k.key_display) + len(k.description) + 2 for k in keys)
        self._narrow = self._needed > self.app.size.width
        if self._narrow:
            keys.sort(key=lambda k: k.action not in FIRST)
        yield from keys

    def on_resize(self, event: events.Resize) -> None:
        """Another width may need another order."""
        if (self._needed > self.app.size.width) != self._narrow:
            self.call_after_refresh(self.recompose)
