"""The chat on a terminal: pictures, streamed answers, base and KORE side by side. Never imports torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

from kore.errors import KoreError
from kore_cli.chat.header import EMBEDDED, asked_with, base_name, header, why_gone
from kore_cli.chat.paths import split_pictures
from kore_cli.chat.speakers import Voices
from kore_cli.chat.transcript import Exchange, history, save
from kore_cli.dashboard.base_app import PlainApp
from kore_cli.screens.exchange import ExchangeView, Talk
from kore_cli.screens.help import HelpScreen
from kore_cli.screens.parts import KeyBar
from kore_cli.screens.picture import PictureScreen
from kore_cli.widgets.image import Picture
from kore_cli.widgets.keys import CHAT
from kore_cli.widgets.themes import OWN

if TYPE_CHECKING:
    from kore_cli.chat.child import ChatClient

WARMTH = (0.7, 1.0, 0.0)
GONE = "the model has gone; leave with ^q and start again"
BUSY = "still answering; ^c stops it"
RESTING = frozenset(k.action for k in CHAT) - {"quit", "stop"}
Event = dict[str, Any]


class ChatApp(PlainApp):
    """Ask a model about pictures.

    Args:
        connect: starts the child, given who is to be told what it says.
        target: what is open, as it can be asked for again; by default the title.
        pictures: shown with the next question. compare: both answer. who: base or the adapter.
        adapters: more runs or adapters to switch to.
        context: send earlier turns along; None decides by the model.
    """

    TITLE = "KORE chat"
    CSS_PATH = "../kore.tcss"
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (80, "-normal"), (120, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (10, "-short"), (20, "-medium"), (34, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[Binding]] = [  # type: ignore[assignment]
        Binding(
            k.keys,
            k.action,
            k.words,
            show=k.footer,
            key_display=k.shown,
            priority=True,
            id=f"chat.{k.action}",
        )
        for k in CHAT
        if k.bound
    ]

    class Said(Message):
        """The child said something."""

        def __init__(self, event: Event) -> None:
            super().__init__()
            self.event = event

    def __init__(
        self,
        connect: Callable[[Callable[[Event], None]], ChatClient],
        *,
        title: str,
        target: str | None = None,
        pictures: list[str] | None = None,
        compare: bool = False,
        who: str | None = None,
        temperature: float = 0.0,
        adapters: list[str] | None = None,
        context: bool | None = None,
        theme: str = "kore-dark",
        images: str = "auto",
    ) -> None:
        super().__init__()
        for own in OWN:
            self.register_theme(own)
        self.theme = theme if theme in self.available_themes else "kore-dark"
        self._connect, self.name_shown, self.images = connect, title, images
        self.pictures = list(pictures or [])
        self.voices = Voices(target or title, adapters or (), who=who, compare=compare)
        self.temperature, self.context = temperature, context
        self.exchanges: list[Exchange] = []
        self.base = ""
        self.closed: str | None = None
        self._client: ChatClient | None = None
        self._views: list[ExchangeView] = []
        self._recall = 0

    def compose(self) -> ComposeResult:
        """Who answers, the conversation, the picture, the question."""
        yield Static(id="who")
        # as high as its window at least: an anchored text that is shorter would hang at the bottom
        yield Talk(Vertical(Static(id="welcome"), id="said"), id="talk")
        with Horizontal(id="asking"):
            yield Picture(id="thumb")
            yield Static(id="thumb-name")
        yield Input(placeholder="ask, or paste or drop a picture's path", id="ask")
        yield KeyBar()

    def on_mount(self) -> None:
        """Start the child at once, so that the model loads while the question is typed."""
        self._welcome()
        self.query_one("#talk", Talk).anchor()
        self.query_one("#ask", Input).focus()
        self._client = self._connect(self._hear)
        self.set_interval(0.1, self._bring_up_to_date)
        self._refresh()

    def _welcome(self) -> None:
        if self.voices.models:
            picture = "" if self.pictures else " A picture's path may be pasted or dropped."
            words = f"Ready. Ask something.{picture}"
        else:
            words = "Loading the model. You can type already.\n\n"
            words += "Paste or drop a picture's path, or press ^o. F1 shows the keys."
        self.query_one("#welcome", Static).update(words)

    def _hear(self, event: Event) -> None:
        self.post_message(self.Said(event))

    def on_unmount(self) -> None:
        """End the child."""
        if self._client is not None:
            self._client.close()

    @property
    def busy(self) -> Exchange | None:
        """The exchange that is being answered."""
        return self.exchanges[-1] if self.exchanges and not self.exchanges[-1].done else None

    def _refresh(self) -> None:
        self.query_one("#who", Static).update(self._who_text())
        asking = self.query_one("#asking")
        asking.display = bool(self.pictures)
        if self.pictures:
            self.query_one("#thumb", Picture).show(self.pictures[0])
            self.query_one("#thumb-name", Static).update(asked_with(self.pictures))

    def _who_text(self) -> Content:
        return header(
            self.name_shown,
            ready=bool(self.voices.models),
            closed=self.closed,
            answering=self.voices.answering,
            source=self.voices.shown,
            coming=self.voices.coming,
            base=self.base,
            temperature=self.temperature,
            context=self._sends_context(),
            busy=self.busy is not None,
        )

    def _sends_context(self) -> bool:
        return base_name(self.base) != EMBEDDED if self.context is None else self.context

    @on(Said)
    def _said(self, message: Said) -> None:
        event = message.event
        if "closed" in event:
            self.closed = why_gone(str(event["words"]), event["closed"])
            if self.busy:
                self.exchanges[-1].error, self.exchanges[-1].done = self.closed, True
        elif event.get("ready"):
            self.voices.ready(event["models"])
            self.base = str(event["base"])
            self._welcome()
        elif self.exchanges:
            if "error" in event and (words := self.voices.refused()):
                self.notify(words, severity="error", timeout=4)
            self.exchanges[-1].take(event)
        self._refresh()
        if not self.busy:
            self._bring_up_to_date()

    def _bring_up_to_date(self) -> None:
        """Show what has streamed in since, at most ten times a second."""
        if self._views:
            self._views[-1].show()

    @on(Input.Changed, "#ask")
    def _typed(self, event: Input.Changed) -> None:
        rest, found = split_pictures(event.value)
        if found and not rest:
            self.pictures = found
            event.input.value = ""
            self._refresh()

    @on(Input.Submitted, "#ask")
    def _submitted(self, event: Input.Submitted) -> None:
        text, found = split_pictures(event.value)
        if text and self._still_answering():
            return  # it stays in its line
        if found:
            self.pictures = found
        event.input.value = ""
        if text:
            self._ask(text, self.pictures, self.temperature)
        self._refresh()

    def _ask(self, text: str, images: list[str], temperature: float) -> None:
        if self.closed is not None or self._client is None:
            self.notify(GONE, severity="error")
            return
        if self._still_answering():
            return
        self._recall = 0
        asked = self.voices.ask()
        past = history(self.exchanges, self.voices.source) if self._sends_context() else []
        exchange = Exchange(text, list(images), temperature, self.voices.source)
        pictured = not self.exchanges or self.exchanges[-1].images != exchange.images
        self.exchanges.append(exchange)
        view = ExchangeView(exchange, pictured=pictured)
        self._views.append(view)
        self.query_one("#welcome").display = False
        self.query_one("#said").mount(view)
        self.query_one("#talk", Talk).anchor()
        self._client.ask({"text": text, "image": images, "temperature": temperature, "history": past} | asked)
        self._refresh()

    def _still_answering(self) -> bool:
        if self.busy:
            self.notify(BUSY, severity="warning", timeout=2)
        return self.busy is not None

    def _again(self, temperature: float) -> None:
        if self._still_answering() or not self.exchanges:
            return
        if self.closed is not None:
            self.notify(GONE, severity="error")
            return
        last = self.exchanges.pop()
        self._views.pop().remove()
        self._ask(last.text, last.images, temperature)

    def action_regenerate(self) -> None:
        """Ask the last question again."""
        self._again(self.exchanges[-1].temperature if self.exchanges else 0.0)

    def action_retry(self) -> None:
        """Ask the last question again, warmer: 0.7, then 1, then greedy."""
        if self.exchanges:
            now = self.exchanges[-1].temperature
            self._again(next((w for w in WARMTH if w > now), WARMTH[-1]))

    def action_compare(self) -> None:
        """Both answer, or one."""
        self._turned(self.voices.turn_compare())

    def action_adapter(self) -> None:
        """The next who answers: the adapter, the base, then other adapters if some were named."""
        self._turned(self.voices.turn())

    def _turned(self, why_not: str | None) -> None:
        if why_not:
            self.notify(why_not, severity="warning", timeout=3)
        self._refresh()

    def action_picture(self) -> None:
        """Choose a picture by path."""

        def chosen(path: str | None) -> None:
            if path is not None:
                self.pictures = [path] if path else []
            self._refresh()
            self.query_one("#ask", Input).focus()

        self.push_screen(PictureScreen(self.pictures[0] if self.pictures else ""), chosen)

    def action_save(self) -> None:
        """Write the conversation as Markdown into the working folder."""
        if not self.exchanges:
            return
        try:
            path = save(self.exchanges, f"chat {self.name_shown}", Path.cwd())
        except (KoreError, OSError) as error:
            self.notify(str(error), title="not written", severity="error", timeout=4)
        else:
            self.notify(str(path), title="written", timeout=4)

    def action_clear(self) -> None:
        """Begin a new conversation."""
        if self._still_answering():
            return
        for view in self._views:
            view.remove()
        self.exchanges, self._views = [], []
        self._welcome()
        self.query_one("#welcome").display = True
        self._refresh()

    def action_stop(self) -> None:
        """Stop the answer, not the program; without an answer, copy what is selected."""
        if self.busy and self._client is not None:
            self._client.stop()
        elif selected := self.screen.get_selected_text():
            self.copy_to_clipboard(selected)
            self.notify("copied", timeout=1)
        else:
            self.notify("^q leaves", timeout=2)

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(HelpScreen(("chat",)))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Behind a window the chat's own keys rest, but for those that end something."""
        return not (self._behind_a_window() and action in RESTING)

    def _behind_a_window(self) -> bool:
        return len(self.screen_stack) > 1

    def on_key(self, event: events.Key) -> None:
        """Up and down walk through earlier questions; Backspace in an empty line drops the picture."""
        field = self.query_one("#ask", Input)
        if self._behind_a_window() or not field.has_focus:
            return
        if event.key in ("up", "down") and self.exchanges:
            self.action_recall(1 if event.key == "up" else -1)
        elif event.key == "backspace" and not field.value and self.pictures:
            self.action_drop_picture()

    def action_recall(self, by: int) -> None:
        """An earlier question, or a later one, into the line."""
        field = self.query_one("#ask", Input)
        self._recall = max(0, min(len(self.exchanges), self._recall + by))
        field.value = self.exchanges[-self._recall].text if self._recall else ""
        field.cursor_position = len(field.value)

    def action_drop_picture(self) -> None:
        """Ask the next questions without a picture."""
        self.pictures = []
        self._refresh()

    def action_scroll_back(self) -> None:
        """A page back in the conversation."""
        self.query_one("#talk", Talk).scroll_page_up(animate=False)

    def action_scroll_on(self) -> None:
        """A page on; at its end the conversation follows what is said."""
        self.query_one("#talk", Talk).page_on()
