"""The help screen: every key, from the one list."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from kore_cli.widgets.keys import groups


class HelpScreen(ModalScreen[None]):
    """Keys by where they work. Args: only: the places to show; all of them if empty."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,q,question_mark,f1", "dismiss", "Close")]

    def __init__(self, only: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._only = only

    def compose(self) -> ComposeResult:
        """One block per place."""
        with VerticalScroll(id="help") as box:
            box.border_title = "keys"
            box.border_subtitle = "Escape closes"
            for place, keys in groups().items():
                if self._only and place not in self._only:
                    continue
                yield Static(Content.styled(place, "bold $accent"), classes="help-place")
                for key in keys:
                    # two columns, so that a long text wraps under its own start
                    with Horizontal(classes="help-row"):
                        yield Static(Content.styled(key.shown, "bold $primary"), classes="help-key")
                        yield Static(Content.assemble(f"{key.words}: ", (key.about, "$foreground 70%")))
