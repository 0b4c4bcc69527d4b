"""One question with its picture, and the answers, side by side when there are two."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from kore_cli.chat.transcript import EMPTY, Answer, Exchange
from kore_cli.widgets.image import Picture
from kore_cli.widgets.word_diff import marked

BASE = "base"


class ExchangeView(Vertical):
    """Shows an exchange while its answers stream in.

    Args:
        pictured: show the images too, where they differ from those of the exchange before.
    """

    def __init__(self, exchange: Exchange, *, pictured: bool = True) -> None:
        super().__init__(classes="exchange")
        self._exchange = exchange
        self._pictures = exchange.images if pictured else []
        self._shown: object = None

    def compose(self) -> ComposeResult:
        """The question, then the answers."""
        with Horizontal(classes="question-row"):
            if self._pictures:
                yield Picture(classes="question-picture")
            yield Static(
                Content.assemble(("› ", "bold $accent"), (self._exchange.text, "bold")),
                classes="question-text",
            )
        yield Horizontal(classes="answers")

    def on_mount(self) -> None:
        """Load the picture."""
        self.query_one(".question-row").set_class(bool(self._pictures), "-pictured")
        if self._pictures:
            self.query_one(Picture).show(self._pictures[0])
        self.show()

    def show(self) -> None:
        """Update the answers."""
        exchange = self._exchange
        state = (
            exchange.error,
            exchange.done,
            tuple((a.model, a.text, a.done) for a in exchange.answers.values()),
        )
        rows = self.query(".answers")  # none before the view is composed, and while it is removed
        if state == self._shown or not self.is_mounted or not rows:
            return
        self._shown = state
        row = rows.first()
        boxes = list(row.query(Static))
        answers = list(exchange.answers.values())
        rest = exchange.error is not None or not answers  # a box for text that is no answer
        while len(boxes) < len(answers) + rest:
            box = Static(classes="answer")
            row.mount(box)
            boxes.append(box)
        for box, answer in zip(boxes, answers, strict=False):
            box.border_title = self._title(answer)
            box.update(self._text(answer, answers))
        if exchange.error is not None:
            boxes[len(answers)].border_title = "error"
            boxes[len(answers)].update(Content.styled(exchange.error, "$error"))
        elif not answers:
            boxes[0].border_title = "…"
            boxes[0].update(Content.styled("thinking", "$foreground 45%"))

    def _title(self, answer: Answer) -> Content:
        tone = "$foreground 70%" if answer.model == BASE else "$success"
        parts: list[tuple[str, str]] = [(answer.model, f"bold {tone}")]
        if answer.seconds is not None:
            parts.append((f" {answer.seconds:.1f}s", "$foreground 45%"))
        if self._exchange.temperature:
            parts.append((f" t={self._exchange.temperature:g}", "$warning"))
        if answer.stopped:
            parts.append((" stopped", "$warning"))
        return Content.assemble(*parts)

    def _text(self, answer: Answer, answers: list[Answer]) -> Content:
        if answer.done and not answer.text.strip():
            return Content.styled(EMPTY, "$foreground 45%")
        cursor = "" if answer.done or self._exchange.done else "▌"
        other = answers[0]
        if answer.done and answer is not other and other.done:
            return marked(other.text, answer.text, "bold $success")
        return Content(answer.text + cursor)


class Talk(VerticalScroll):
    """The conversation; it follows new answers until the reader scrolls back."""

    def page_on(self) -> None:
        """Scroll one page on; at the end, follow again."""
        if self.scroll_y + self.size.height >= self.max_scroll_y:
            self.anchor()
        else:
            self.scroll_page_down(animate=False)
