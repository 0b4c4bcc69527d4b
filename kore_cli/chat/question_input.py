"""The line in which a question is typed: image paths leave it at once, and no character is lost."""

from __future__ import annotations

from textual import events
from textual.message import Message
from textual.widgets import Input

from kore_cli.chat.paths import split_pictures


class QuestionInput(Input):
    """An input that takes its own text, so that whatever is typed meanwhile stays in the line.

    The widget and the app each have a message queue: an app that cleared the line on a message would also
    clear what was typed after the message was sent.
    """

    class Dropped(Message):
        """The line held image paths and nothing else, as after a drop onto the terminal."""

        def __init__(self, images: list[str]) -> None:
            super().__init__()
            self.images = images

    def watch_value(self, value: str) -> None:
        """Take image paths out of the line as soon as they are complete."""
        rest, images = split_pictures(value)
        if images and not rest:
            self.value = ""
            self.post_message(self.Dropped(images))

    async def action_submit(self) -> None:
        """Empty the line and submit what it held."""
        text, self.value = self.value, ""
        self.post_message(self.Submitted(self, text))

    async def _on_key(self, event: events.Key) -> None:
        """Submit at once: as a binding, Enter would go through the app, and later text would overtake it."""
        if event.key == "enter":
            event.stop()
            event.prevent_default()
            await self.action_submit()

    def put_back(self, text: str) -> None:
        """Return a question that cannot be asked now, before what was typed since."""
        self.value = " ".join(part for part in (text, self.value) if part)
        self.cursor_position = len(self.value)

    def _on_paste(self, event: events.Paste) -> None:
        """Paste every line; Textual's own input keeps the first alone."""
        self.replace(" ".join(event.text.split("\n")).replace("\r", ""), *self.selection)
        event.stop()
        event.prevent_default()
