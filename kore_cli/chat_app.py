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
from kore_cli.chat_header import EMBEDDED, asked_with, base_name, header
from kore_cli.chat_log import SAME_WEIGHTS, Exchange, history, save
from kore_cli.chat_paths import split_pictures
from kore_cli.keys import CHAT
from kore_cli.pictures import Picture
from kore_cli.plain import PlainApp
from kore_cli.screens.exchange import ExchangeView, Talk
from kore_cli.screens.help import HelpScreen
from kore_cli.screens.parts import KeyBar
from kore_cli.screens.picture import PictureScreen
from kore_cli.themes import OWN

if TYPE_CHECKING:
    from kore_cli.chat_client import ChatClient

WARMTH = (0.7, 1.0, 0.0)
GONE = "the model has gone; leave with ^q and start again"
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
    CSS_PATH = "kore.tcss"
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
        self.compare, self.who, self.temperature = compare, who, temperature
        self.adapters = [target or title, *adapters] if adapters else []
        self.context = context
        self.exchanges: list[Exchange] = []
        self.models: list[str] = []
        self.base = ""
        self.closed: str | None = None
        self._client: ChatClient | None = None
        self._views: list[ExchangeView] = []
        self._recall = 0
        # which adapter is on, which is to be put on with the next question, which with the present one
        self._at_adapter = 0
        self._next: int | None = None
        self._using: int | None = None
        self._who_before = who
        self._bare = False

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
        if self.models:
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
        coming = self._next if self._next is not None else self._using
        return header(
            self.name_shown,
            ready=bool(self.models),
            closed=self.closed,
            answering=self._answering(),
            source=self._adapter_name(self._at_adapter),
            coming=None if coming is None else self._adapter_name(coming),
            base=self.base,
            temperature=self.temperature,
            context=self._sends_context(),
            busy=self.busy is not None,
        )

    def _adapter_name(self, index: int) -> str:
        return Path(self.adapters[index]).name if self.adapters else self.name_shown

    def _answering(self) -> list[str]:
        if self.compare and len(self.models) > 1:
            return self.models[::-1]
        return [self.who] if self.who in self.models else self.models[:1]

    def _sends_context(self) -> bool:
        return base_name(self.base) != EMBEDDED if self.context is None else self.context

    @on(Said)
    def _said(self, message: Said) -> None:
        event = message.event
        if "closed" in event:
            self.closed = str(event["words"] or f"exit code {event['closed']}").strip().splitlines()[-1]
            if self.busy:
                self.exchanges[-1].error, self.exchanges[-1].done = self.closed, True
            self._using = None
        elif event.get("ready"):
            if not self.models:
                self._bare = set(event["models"]) <= set(SAME_WEIGHTS)
            self.models, self.base = list(event["models"]), str(event["base"])
            if self._using is not None:
                self._at_adapter, self._using = self._using, None
            self._welcome()
        elif self.exchanges:
            if "error" in event and self._using is not None:
                self._not_switched(self._using)
            self.exchanges[-1].take(event)
        self._refresh()
        if not self.busy:
            self._bring_up_to_date()

    def _not_switched(self, wanted: int) -> None:
        """An adapter could not be put on: all is as it was."""
        self._using, self.who = None, self._who_before
        new, old = self._adapter_name(wanted), self._adapter_name(self._at_adapter)
        self.notify(f"{new} cannot answer; {old} is still there", severity="error", timeout=4)

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
        if self.busy:
            self.notify("still answering; ^c stops it", severity="warning", timeout=2)
            return
        self._recall = 0
        self._using, self._next = self._next, None
        source = self._adapter_name(self._at_adapter if self._using is None else self._using)
        past = history(self.exchanges, source) if self._sends_context() else []
        exchange = Exchange(text, list(images), temperature, source)
        pictured = not self.exchanges or self.exchanges[-1].images != exchange.images
        self.exchanges.append(exchange)
        view = ExchangeView(exchange, pictured=pictured)
        self._views.append(view)
        self.query_one("#welcome").display = False
        self.query_one("#said").mount(view)
        self.query_one("#talk", Talk).anchor()
        question: Event = {"text": text, "image": images, "temperature": temperature, "history": past}
        if self._using is not None:
            question["use"] = self.adapters[self._using]
        if self.compare and (len(self.models) != 1 or self._using is not None):
            question["compare"] = True
        elif self.who in self.models:
            question["model"] = self.who
        self._client.ask(question)
        self._refresh()

    def _again(self, temperature: float) -> None:
        if self.busy or not self.exchanges:
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
        if len(self.models) == 1 and self._next is None:
            self.notify("nothing to compare: this model has no adapter", severity="warning", timeout=3)
            return
        self.compare = not self.compare
        self._refresh()

    def action_adapter(self) -> None:
        """The next who answers: the adapter, the base, then other adapters if some were named."""
        at = self.models.index(self.who) if self.who in self.models else 0
        if self.compare and not self.adapters:
            self.notify("both answer; ^b lets one", severity="warning", timeout=3)
        elif not self.compare and self._next is None and at + 1 < len(self.models):
            self.who = self.models[at + 1]
        else:
            self._next_adapter()
        self._refresh()

    def _next_adapter(self) -> None:
        """Choose the adapter after the one chosen now; the one that is on needs no switch."""
        now = self._at_adapter if self._next is None else self._next
        if self._next is None:
            self._who_before = self.who
        self.who = None
        after = (now + 1) % len(self.adapters) if self.adapters else self._at_adapter
        if self._bare and self.adapters and not after:
            after = 1  # what was opened has no adapter to put on: it answers as the base
        self._next = None if after == self._at_adapter else after

    def action_picture(self) -> None:
        """Choose a picture by path."""

        def chosen(path: str | None) -> None:
            if path is not None:
                self.pictures = [path] if path else []
            self._refresh()
            self.query_one("#ask", Input).focus()

        if isinstance(self.screen, PictureScreen):
            return
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
        if self.busy:
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
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen(("chat",)))

    def on_key(self, event: events.Key) -> None:
        """Up and down walk through earlier questions; Backspace in an empty line drops the picture."""
        field = self.query_one("#ask", Input)
        if not field.has_focus:
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
