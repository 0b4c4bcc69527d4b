"""Small widgets that screens share: texts that redraw only on change, boxes that can be enlarged, a footer
that shows help and leaving first."""

from __future__ import annotations

from textual import events
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.visual import VisualType
from textual.widgets import Footer, Static
from textual.widgets._footer import FooterKey

FIRST = ("help", "quit")


class Box(VerticalScroll):
    """A scrolling text that `z` enlarges."""

    ALLOW_MAXIMIZE = True


class Still(Static):
    """A text that is redrawn when it changes, and laid out again when its size changes."""

    _titles: tuple[Content | str, Content | str] | None = None

    def update(self, content: VisualType = "", *, layout: bool = True) -> None:
        """Show a text; the same text again does nothing."""
        shown = self.content
        if isinstance(content, Content) and isinstance(shown, Content) and content.is_same(shown):
            return
        before = self._extent()
        super().update(content, layout=False)
        if layout and (before is None or before != self._extent()):
            self.refresh(layout=True)

    def _extent(self) -> tuple[int, int] | None:
        """The columns and lines that depend on the text; None before the widget has a size."""
        if not self.styles.auto_dimensions:
            return (0, 0)
        width = self.content_size.width
        if not width:
            return None
        visual, rules = self._render(), self.styles.get_rules()
        return (
            visual.get_optimal_width(rules, width) if self.styles.is_auto_width else 0,
            visual.get_height(rules, width) if self.styles.is_auto_height else 0,
        )

    def entitle(self, title: Content | str, subtitle: Content | str = "") -> None:
        """Set the frame's titles."""
        if (title, subtitle) != self._titles:
            self._titles = (title, subtitle)
            self.border_title, self.border_subtitle = title, subtitle


class KeyBar(Footer):
    """The footer; where not all keys fit, help and leaving come first."""

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
        """Reorder the keys if the new width needs it."""
        if (self._needed > self.app.size.width) != self._narrow:
            self.call_after_refresh(self.recompose)
