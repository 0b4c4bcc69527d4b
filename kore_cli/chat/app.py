"""The chat on a terminal: images, streamed answers, base and adapter side by side. Never imports torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

from kore.errors import KoreError
from kore_cli.chat.child import ChatClient, Event
from kore_cli.chat.header import EMBEDDED, attached, base_name, exit_reason, header
from kore_cli.chat.paths import split_pictures
from kore_cli.chat.question_input import QuestionInput
from kore_cli.chat.speakers import Speakers
from kore_cli.chat.transcript import Exchange, history, save
from kore_cli.dashboard.base_app import PlainApp
from kore_cli.screens.exchange import ExchangeView, Talk
from kore_cli.screens.help import HelpScreen
from kore_cli.screens.parts import KeyBar
from kore_cli.screens.picture import PictureScreen
from kore_cli.widgets.image import Picture
from kore_cli.widgets.keys import CHAT
from kore_cli.widgets.themes import OWN

TEMPERATURES = (0.7, 1.0, 0.0)
CLOSED = "the model process ended; leave with ^q and start again"
BUSY = "still answering; ^c stops it"
MAIN_SCREEN_ONLY = frozenset(k.action for k in CHAT) - {"quit", "stop"}


class ChatApp(PlainApp):
    """Ask a model about images.

    Args:
        connect: starts the child process; its argument receives the child's events.
        title: the name shown for the target.
        target: what is open, in a form that the child accepts; by default the title.
        pictures: attached to the next question. compare: base and adapter both answer.
        who: base or the adapter.
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

    class ChildEvent(Message):
        """An event from the child process."""

        def __init__(self, event: Event) -> None:
            super().__init__()
            self.event = event

    def __init__(
        self,
        connect: Callable[[Callable[[Event], object]], ChatClient],
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
        self.speakers = Speakers(target or title, adapters or (), who=who, compare=compare)
        self.temperature, self.context = temperature, context
        self.exchanges: list[Exchange] = []
        self.base = ""
        self.closed: str | None = None
        self._client: ChatClient | None = None
        self._views: list[ExchangeView] = []
        self._recall, self._draft = 0, ""

    def compose(self) -> ComposeResult:
        """The header, the conversation, the attached image, the question."""
        yield Static(id="who")
        # at least as high as its window: a shorter anchored text would stick to the bottom
        yield Talk(Vertical(Static(id="welcome"), id="exchanges"), id="talk")
        with Horizontal(id="attached"):
            yield Picture(id="thumb")
            yield Static(id="thumb-name")
        yield QuestionInput(placeholder="ask, or paste or drop a picture's path", id="ask")
        yield KeyBar()

    def on_mount(self) -> None:
        """Start the child at once, so that the model loads while the question is typed."""
        self._welcome()
        self.query_one("#talk", Talk).anchor()
        self.query_one("#ask", QuestionInput).focus()
        self._client = self._connect(lambda event: self.post_message(self.ChildEvent(event)))
        self.set_interval(0.1, self._show_progress)
        self._refresh()

    def _welcome(self) -> None:
        if self.speakers.models:
            hint = "" if self.pictures else " Paste or drop a picture's path to ask about it."
            text = f"Ready. Ask something.{hint}"
        else:
            text = "Loading the model. You can type already.\n\n"
            text += "Paste or drop a picture's path, or press ^o. F1 shows the keys."
        self.query_one("#welcome", Static).update(text)

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
        self.query_one("#attached").display = bool(self.pictures)
        if self.pictures:
            self.query_one("#thumb", Picture).show(self.pictures[0])
            self.query_one("#thumb-name", Static).update(attached(self.pictures))

    def _who_text(self) -> Content:
        return header(
            self.name_shown,
            ready=bool(self.speakers.models),
            closed=self.closed,
            answering=self.speakers.answering,
            source=self.speakers.shown,
            coming=self.speakers.coming,
            base=self.base,
            temperature=self.temperature,
            context=self._sends_context(),
            busy=self.busy is not None,
        )

    def _sends_context(self) -> bool:
        return base_name(self.base) != EMBEDDED if self.context is None else self.context

    @on(ChildEvent)
    def _child_event(self, message: ChildEvent) -> None:
        event = message.event
        if "closed" in event:
            self.closed = exit_reason(str(event["words"]), event["closed"])
            if self.busy:
                self.exchanges[-1].error, self.exchanges[-1].done = self.closed, True
        elif event.get("ready"):
            self.speakers.ready(event["models"])
            self.base = str(event["base"])
            self._welcome()
        elif self.exchanges:
            if "error" in event and (text := self.speakers.refused()):
                self.notify(text, severity="error", timeout=4)
            self.exchanges[-1].take(event)
        self._refresh()
        if not self.busy:
            self._show_progress()

    def _show_progress(self) -> None:
        """Show what has streamed in, at most ten times a second."""
        if self._views:
            self._views[-1].show()

    @on(QuestionInput.Dropped)
    def _dropped(self, event: QuestionInput.Dropped) -> None:
        self.pictures = event.images
        self._refresh()

    @on(Input.Submitted, "#ask")
    def _submitted(self, event: Input.Submitted) -> None:
        text, images = split_pictures(event.value)
        if text and not self._can_ask():
            self.query_one("#ask", QuestionInput).put_back(event.value)
            return
        if images:
            self.pictures = images
        if text:
            self._ask(text, self.pictures, self.temperature)
        self._refresh()

    def _can_ask(self) -> bool:
        """Whether a question can be sent now; shows why not."""
        if self.closed is not None or self._client is None:
            self.notify(CLOSED, severity="error")
            return False
        return not self._still_answering()

    def _ask(self, text: str, images: list[str], temperature: float) -> None:
        assert self._client is not None
        self._recall, self._draft = 0, ""
        question = self.speakers.ask()
        past = history(self.exchanges, self.speakers.source) if self._sends_context() else []
        exchange = Exchange(text, list(images), temperature, self.speakers.source)
        pictured = not self.exchanges or self.exchanges[-1].images != exchange.images
        self.exchanges.append(exchange)
        view = ExchangeView(exchange, pictured=pictured)
        self._views.append(view)
        self.query_one("#welcome").display = False
        self.query_one("#exchanges").mount(view)
        self.query_one("#talk", Talk).anchor()
        self._client.ask(
            {"text": text, "image": images, "temperature": temperature, "history": past} | question
        )
        self._refresh()

    def _still_answering(self) -> bool:
        if self.busy:
            self.notify(BUSY, severity="warning", timeout=2)
        return self.busy is not None

    def _again(self, temperature: float) -> None:
        if not self.exchanges or not self._can_ask():
            return
        last = self.exchanges.pop()
        self._views.pop().remove()
        self._ask(last.text, last.images, temperature)

    def action_regenerate(self) -> None:
        """Ask the last question again."""
        self._again(self.exchanges[-1].temperature if self.exchanges else 0.0)

    def action_retry(self) -> None:
        """Ask the last question again at the next temperature: 0.7, then 1, then greedy."""
        if self.exchanges:
            now = self.exchanges[-1].temperature
            self._again(next((t for t in TEMPERATURES if t > now), TEMPERATURES[-1]))

    def action_compare(self) -> None:
        """Switch between both answering and one."""
        self._switched(self.speakers.switch_compare())

    def action_adapter(self) -> None:
        """Switch to the next speaker: the adapter, the base, then the other adapters."""
        self._switched(self.speakers.switch())

    def _switched(self, why_not: str | None) -> None:
        if why_not:
            self.notify(why_not, severity="warning", timeout=3)
        self._refresh()

    def action_picture(self) -> None:
        """Choose an image by its path."""

        def chosen(path: str | None) -> None:
            if path is not None:
                self.pictures = [path] if path else []
            self._refresh()
            self.query_one("#ask", QuestionInput).focus()

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
        """Start a new conversation."""
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
        """While a dialog is open, only the keys that stop or leave work."""
        return not (self._dialog_open() and action in MAIN_SCREEN_ONLY)

    def _dialog_open(self) -> bool:
        return len(self.screen_stack) > 1

    def on_key(self, event: events.Key) -> None:
        """Up and down recall earlier questions; Backspace in an empty line drops the image."""
        field = self.query_one("#ask", QuestionInput)
        if self._dialog_open() or not field.has_focus:
            return
        if event.key in ("up", "down") and self.exchanges:
            self.action_recall(1 if event.key == "up" else -1)
        elif event.key == "backspace" and not field.value and self.pictures:
            self.action_drop_picture()

    def action_recall(self, by: int) -> None:
        """Put an earlier or later question into the line; below the newest comes what was typed."""
        field = self.query_one("#ask", QuestionInput)
        if not self._recall:
            self._draft = field.value
        self._recall = max(0, min(len(self.exchanges), self._recall + by))
        field.value = self.exchanges[-self._recall].text if self._recall else self._draft
        field.cursor_position = len(field.value)

    def action_drop_picture(self) -> None:
        """Ask the next questions without an image."""
        self.pictures = []
        self._refresh()

    def action_scroll_back(self) -> None:
        """Scroll one page back."""
        self.query_one("#talk", Talk).scroll_page_up(animate=False)

    def action_scroll_on(self) -> None:
        """Scroll one page on; at the end, follow new answers."""
        self.query_one("#talk", Talk).page_on()
