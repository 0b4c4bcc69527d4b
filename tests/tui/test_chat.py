"""The chat screen, with a child that says what the test wants."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from textual import events
from textual.containers import VerticalScroll
from textual.content import Content
from textual.pilot import Pilot
from textual.widgets import Input, Static
from textual.widgets._footer import FooterKey

from kore.errors import MissingArtefact
from kore_cli.chat.app import ChatApp
from kore_cli.chat.paths import as_picture, split_pictures
from kore_cli.chat.start import open_chat
from kore_cli.chat.stdio import Plan
from kore_cli.chat.transcript import Exchange, markdown
from kore_cli.screens.picture import PathSuggester

Event = dict[str, Any]


class FakeClient:
    """Answers by script instead of by a model."""

    def __init__(self, listen: Callable[[Event], None]) -> None:
        self.say = listen
        self.asked: list[Event] = []
        self.stopped = self.closed = 0

    def ask(self, question: Event) -> None:
        """Keep the question."""
        self.asked.append(question)

    def stop(self) -> None:
        """Count."""
        self.stopped += 1

    def close(self) -> None:
        """Count."""
        self.closed += 1

    def answer(self, model: str, text: str) -> None:
        """Stream an answer."""
        for piece in text.split(" "):
            self.say({"index": 0, "model": model, "delta": piece + " "})
        self.say({"index": 0, "model": model, "answer": text, "seconds": 0.5})


class Chat:
    """An app with its fake child."""

    def __init__(self, models: tuple[str, ...] = ("kore", "base"), **options: Any) -> None:
        self.models = models
        self.app = ChatApp(self.connect, title="demo", **options)  # type: ignore[arg-type]

    def connect(self, listen: Callable[[Event], None]) -> FakeClient:
        """Make the child."""
        self.client = FakeClient(listen)
        return self.client

    async def ready(self, pilot: Pilot[Any]) -> None:
        """The model has loaded."""
        self.client.say({"ready": True, "models": list(self.models), "base": "llava"})
        await pilot.pause()

    async def type(self, pilot: Pilot[Any], text: str) -> None:
        """Type a line and press Enter."""
        self.app.screen.query_one("#ask", Input).value = text
        await pilot.press("enter")
        await pilot.pause()

    async def until(self, pilot: Pilot[Any], condition: Callable[[], object]) -> None:
        """Wait until something is so: what streams in is shown by a timer, and machines differ."""
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, self.shown()
            await pilot.pause(0.02)

    async def done(self, pilot: Pilot[Any], *answers: tuple[str, str]) -> None:
        """The question is answered, which the screen shows."""
        for model, text in answers:
            self.client.answer(model, text)
        self.client.say({"index": 0, "done": True})
        await self.until(
            pilot, lambda: not self.app.busy and all(text in self.shown() for _, text in answers)
        )

    def head(self) -> str:
        """The line that says who answers."""
        return str(self.app.query_one("#who", Static).render())

    def shown(self) -> str:
        """All answers on the screen, with their titles."""
        boxes = self.app.query(".answer").results(Static)
        return "\n".join(f"{Content.from_markup(str(box.border_title))}: {box.render()}" for box in boxes)


@pytest.fixture
def picture(tmp_path: Path) -> str:
    """A picture's path with a space in it."""
    path = tmp_path / "a flag.png"
    Image.new("RGB", (20, 10), "red").save(path)
    return str(path)


async def test_answers_stream_in_and_the_one_who_answers_is_named(picture: str) -> None:
    chat = Chat(pictures=[picture])
    async with chat.app.run_test(size=(100, 30)) as pilot:
        await chat.ready(pilot)
        assert "answers: kore" in chat.head()
        await chat.type(pilot, "Which country?")
        assert chat.client.asked[0]["image"] == [picture] and "compare" not in chat.client.asked[0]
        chat.client.say({"index": 0, "model": "kore", "delta": "This is"})
        await chat.until(pilot, lambda: "kore: This is▌" in chat.shown())
        await chat.done(pilot, ("kore", "This is Peru"))
        assert "▌" not in chat.shown()
    assert chat.client.closed == 1


async def test_a_question_sent_while_another_is_answered_stays_in_its_line() -> None:
    chat = Chat()
    async with chat.app.run_test(size=(100, 30)) as pilot:
        await chat.ready(pilot)
        await chat.type(pilot, "Which country?")
        await chat.type(pilot, "Its capital?")
        line = chat.app.screen.query_one("#ask", Input)
        assert len(chat.client.asked) == 1 and line.value == "Its capital?"
        await chat.done(pilot, ("kore", "Peru"))
        await pilot.press("enter")
        await chat.until(pilot, lambda: len(chat.client.asked) == 2)
        assert chat.client.asked[1]["text"] == "Its capital?" and line.value == ""


async def test_comparing_shows_both_side_by_side(picture: str) -> None:
    chat = Chat(compare=True)
    async with chat.app.run_test(size=(120, 30)) as pilot:
        await chat.ready(pilot)
        assert "base and kore" in chat.head()
        await chat.type(pilot, "Who?")
        assert chat.client.asked[0]["compare"] is True
        await chat.done(pilot, ("base", "I do not know"), ("kore", "It is Ada"))
        boxes = list(chat.app.screen.query(".answer"))
        assert len(boxes) == 2
        await chat.until(pilot, lambda: boxes[0].region.y == boxes[1].region.y > 0)


async def test_control_c_stops_the_answer_and_not_the_program() -> None:
    chat = Chat()
    async with chat.app.run_test(size=(100, 30)) as pilot:
        await chat.ready(pilot)
        await chat.type(pilot, "Who?")
        await pilot.press("ctrl+c")
        assert chat.client.stopped == 1 and chat.app.is_running
        chat.client.say({"index": 0, "model": "kore", "answer": "It", "seconds": 1.0, "stopped": True})
        chat.client.say({"index": 0, "done": True})
        await chat.until(pilot, lambda: "stopped" in chat.shown() and not chat.app.busy)
        await pilot.press("ctrl+c")
        assert chat.app.is_running and chat.client.stopped == 1


async def test_again_and_warmer_replace_the_last_answer() -> None:
    chat = Chat()
    async with chat.app.run_test(size=(100, 30)) as pilot:
        await chat.ready(pilot)
        await chat.type(pilot, "Who?")
        for key in ("ctrl+r", "ctrl+t", "ctrl+t"):
            await chat.done(pilot, ("kore", "someone"))
            await pilot.press(key)
            await pilot.pause()
        assert [q["temperature"] for q in chat.client.asked] == [0.0, 0.0, 0.7, 1.0]
        assert len(chat.app.exchanges) == 1


async def test_earlier_turns_are_sent_along_unless_told_otherwise() -> None:
    for context, expected in ((None, 1), (False, 0)):
        chat = Chat(context=context)
        async with chat.app.run_test(size=(100, 30)) as pilot:
            await chat.ready(pilot)
            await chat.type(pilot, "Who?")
            await chat.done(pilot, ("kore", "Ada"))
            await chat.type(pilot, "And where?")
            assert len(chat.client.asked[1]["history"]) == expected


async def test_a_dropped_path_becomes_the_picture_and_backspace_drops_it(picture: str) -> None:
    chat = Chat()
    async with chat.app.run_test(size=(100, 30)) as pilot:
        await chat.ready(pilot)
        chat.app.query_one("#ask", Input).value = f"'{picture}'"
        await pilot.pause()
        assert chat.app.pictures == [picture] and chat.app.query_one("#ask", Input).value == ""
        assert chat.app.query_one("#attached").display
        await pilot.press("backspace")
        assert chat.app.pictures == []


async def test_the_model_switches_to_the_base_and_to_other_adapters() -> None:
    chat = Chat(adapters=["runs/other"])
    async with chat.app.run_test(size=(100, 30)) as pilot:
        await chat.ready(pilot)
        await pilot.press("ctrl+g")
        assert "answers: base" in chat.head()
        await pilot.press("ctrl+g")
        await chat.type(pilot, "Who?")
        assert chat.client.asked[0]["use"] == "runs/other" and "model" not in chat.client.asked[0]


async def test_switching_says_from_when_and_keeps_comparing_and_what_was_said_by_whom() -> None:
    chat = Chat(models=("kore", "base"), adapters=["runs/other"], target="runs/demo", compare=True)
    async with chat.app.run_test(size=(140, 30)) as pilot:
        await chat.ready(pilot)

        async def ask(text: str, *answers: tuple[str, str]) -> None:
            await chat.type(pilot, text)
            await chat.done(pilot, *answers)

        await ask("Who?", ("base", "Bob"), ("kore", "Ada"))
        await pilot.press("ctrl+g")
        assert "from demo   other from the next question" in chat.head() and chat.app.speakers.compare
        await chat.type(pilot, "Who?")
        asked = chat.client.asked[-1]
        assert asked["use"] == "runs/other" and asked["compare"] is True
        assert [h["answers"] for h in asked["history"]] == [{"base": "Bob"}]  # the other one said nothing yet
        chat.client.say({"error": "no such run"})
        await pilot.pause()
        assert "from demo   on" in chat.head() and chat.app.speakers.compare  # it is the old one that answers
        await pilot.press("ctrl+g")
        await chat.type(pilot, "Who?")
        await chat.ready(pilot)
        assert "from other   on" in chat.head()
        await ask("", ("base", "Ben"), ("kore", "Eve"))
        await ask("Sure?")
        assert [h["answers"] for h in chat.client.asked[-1]["history"]] == [
            {"base": "Bob"},
            {"base": "Ben", "kore": "Eve"},
        ]
        await pilot.press("ctrl+g")
        await ask("Back?")
        assert chat.client.asked[-1]["use"] == "runs/demo"  # as it was named, not only by its last part


async def test_a_model_without_an_adapter_is_switched_from_but_not_to() -> None:
    chat = Chat(models=("base",), adapters=["runs/other"], target="kore-tiny")
    async with chat.app.run_test(size=(140, 30)) as pilot:
        await chat.ready(pilot)
        await pilot.press("ctrl+g")
        await chat.type(pilot, "Who?")
        chat.client.say({"ready": True, "models": ["kore", "base"], "base": "llava"})
        await chat.done(pilot)
        for answers in ("base", "kore"):
            await pilot.press("ctrl+g")
            await chat.type(pilot, "Who?")
            await chat.done(pilot)
            assert f"answers: {answers}" in chat.head()
        assert [q.get("use") for q in chat.client.asked] == ["runs/other", None, None]


async def test_a_long_answer_is_followed_until_the_reader_looks_back() -> None:
    chat = Chat()
    async with chat.app.run_test(size=(80, 24)) as pilot:
        await chat.ready(pilot)
        await chat.type(pilot, "Who?")
        talk = chat.app.query_one("#talk", VerticalScroll)

        def followed() -> bool:
            return 0 < talk.max_scroll_y == talk.scroll_y

        async def say(lines: int) -> None:
            before = talk.max_scroll_y
            chat.client.say({"index": 0, "model": "kore", "delta": "a line\n" * lines})
            await chat.until(pilot, lambda: talk.max_scroll_y > before)

        await say(60)
        await chat.until(pilot, followed)
        await pilot.resize_terminal(60, 16)
        await chat.until(pilot, lambda: talk.size.height < 14 and followed())
        await pilot.press("pageup")
        await chat.until(pilot, lambda: talk.scroll_y < talk.max_scroll_y)
        before = talk.scroll_y
        await say(10)
        assert talk.scroll_y == before < talk.max_scroll_y
        await pilot.press("pagedown", "pagedown", "pagedown")
        await say(10)
        await chat.until(pilot, followed)


async def test_asking_again_of_a_model_that_has_gone_keeps_its_last_answer() -> None:
    chat = Chat()
    async with chat.app.run_test(size=(100, 30)) as pilot:
        await chat.ready(pilot)
        await chat.type(pilot, "Who?")
        await chat.done(pilot, ("kore", "Ada"))
        chat.client.say({"closed": 1, "words": "killed"})
        await chat.until(pilot, lambda: "killed" in chat.head())
        await pilot.press("ctrl+r", "ctrl+t")
        assert len(chat.app.exchanges) == 1 and "Ada" in chat.shown()


@pytest.mark.parametrize("size", [(30, 8), (40, 12), (80, 24)])
async def test_small_terminals_have_room_for_question_and_answer(size: tuple[int, int], picture: str) -> None:
    chat = Chat(pictures=[picture])
    async with chat.app.run_test(size=size) as pilot:
        await chat.ready(pilot)
        await chat.type(pilot, "Who?")
        await chat.done(pilot, ("kore", "Ada"))
        screen = chat.app.screen
        await chat.until(pilot, lambda: screen.query_one(".answer").region.y > 0)
        answer, field = screen.query_one(".answer").region, screen.query_one("#ask").region
        assert field.height and field.bottom <= size[1] and field.width == size[0]
        assert screen.query_one("#talk").size.height >= 4
        assert answer.bottom <= field.y and answer.y > 0
        assert screen.query_one(".question-text").region.y <= 2
        if size[1] > 10:
            shown = [k for k in screen.query(FooterKey) if k.region.width and k.region.right <= size[0]]
            assert {"help", "quit"} <= {k.action for k in shown}


async def test_small_words_fit_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = Chat()
    async with chat.app.run_test(size=(100, 30)) as pilot:
        await chat.ready(pilot)
        await chat.type(pilot, "Who?")
        await chat.done(pilot, ("kore", ""))
        assert "(empty answer)" in chat.shown() and "(empty answer)" in markdown(chat.app.exchanges, "x")
        monkeypatch.chdir("/proc")  # where nobody may write
        await pilot.press("ctrl+s")
        assert [n.title for n in chat.app._notifications] == ["not written"]
        await pilot.press("ctrl+l")
        await pilot.pause()
        assert str(chat.app.query_one("#welcome", Static).render()).startswith("Ready")
        await pilot.press("ctrl+o", "ctrl+o")
        await pilot.pause()
        assert len(chat.app.screen_stack) == 2


async def test_a_model_that_cannot_be_loaded_is_told_in_words() -> None:
    chat = Chat()
    async with chat.app.run_test(size=(100, 30)) as pilot:
        await chat.type(pilot, "Who?")
        chat.client.say({"closed": 4, "words": "error: no such model: x"})
        await chat.until(pilot, lambda: "no such model" in chat.head())
        assert chat.app.exchanges[0].error is not None and chat.app.is_running


async def test_saving_writes_markdown_and_clear_begins_anew(tmp_path: Path) -> None:
    chat = Chat()
    async with chat.app.run_test(size=(100, 30)) as pilot:
        await chat.ready(pilot)
        await chat.type(pilot, "Who?")
        await chat.done(pilot, ("kore", "Ada"))
        await pilot.press("ctrl+s", "ctrl+l")
        await pilot.pause()
        assert not chat.app.exchanges
    (path,) = Path().glob("*.md")
    assert "**Question:** Who?" in path.read_text() and "Ada" in path.read_text()


def test_markdown_names_pictures_and_models() -> None:
    exchange = Exchange("Who?", ["/x y.png"], temperature=0.7)
    exchange.take({"model": "kore", "answer": "Ada", "seconds": 1.25})
    page = markdown([exchange], "chat")
    assert "![picture](</x y.png>)" in page and "**kore** (1.2 s, temperature 0.7): Ada" in page


def test_paths_are_found_however_a_terminal_pastes_them(picture: str) -> None:
    escaped = picture.replace(" ", "\\ ")
    url = "file://" + picture.replace(" ", "%20")
    for text in (picture, f"'{picture}'", f'"{picture}"', escaped, url, f"  {picture}\n"):
        assert as_picture(text) == picture
    assert as_picture("who is this.png") is None and as_picture("") is None
    assert split_pictures(f"{escaped} Who is this?") == ("Who is this?", [picture])
    assert split_pictures(f"Who is this? {escaped}") == ("Who is this?", [picture])
    assert split_pictures("Who is\nthis?") == ("Who is\nthis?", [])


@pytest.mark.parametrize(
    "text", ["~5", "~nobody-of-this-name/x.png", "file://[x", "file://[x/y.png", "file:///%00.png"]
)
async def test_words_that_are_no_path_are_words(text: str) -> None:
    assert as_picture(text) is None
    assert split_pictures(f"costs {text}") == (f"costs {text}", [])
    assert await PathSuggester().get_suggestion(text) is None


def test_a_name_that_is_nowhere_is_told_before_the_screen_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(ChatApp, "until_left", lambda self: opened.append(self.name_shown))

    def open_all(name: str, *adapters: str) -> None:
        open_chat(Plan(name), list(adapters), context=None, theme="kore-dark", images="off")

    Path("runs/here").mkdir(parents=True)
    for names in (("runs/typo",), ("kore-tiny", "runs/typo"), ("./typo",), ("typo",), ("a/b/c",)):
        with pytest.raises(MissingArtefact, match=f"no run, adapter or model here: {names[-1]}"):
            open_all(*names)
    for name in ("runs/here", "here", "kore-tiny", "organisation/model"):
        open_all(name)
    assert opened == ["here", "here", "kore-tiny", "model"]


def keys(text: str) -> list[events.Key]:
    """Key events that a terminal sends at once, as it does for a drop without bracketed paste."""
    return [events.Key("enter", None) if c == "\n" else events.Key(c, c) for c in text]


async def test_text_typed_right_behind_a_path_stays_in_the_line(picture: str) -> None:
    chat = Chat()
    async with chat.app.run_test(size=(100, 30)) as pilot:
        await chat.ready(pilot)
        line = chat.app.query_one("#ask", Input)
        for key in keys(f"'{picture}'Who is this?"):
            chat.app.post_message(key)
        await pilot.pause()
        await chat.until(pilot, lambda: line.value == "Who is this?" and chat.app.pictures == [picture])


async def test_text_typed_right_behind_enter_stays_in_the_line(picture: str) -> None:
    chat = Chat()
    async with chat.app.run_test(size=(100, 30)) as pilot:
        await chat.ready(pilot)
        line = chat.app.query_one("#ask", Input)
        for key in keys(f"'{picture}' Who?\nWhere?"):
            chat.app.post_message(key)
        await chat.until(pilot, lambda: chat.client.asked and line.value == "Where?")
        assert chat.client.asked[0]["text"] == "Who?" and chat.client.asked[0]["image"] == [picture]


async def test_a_question_that_cannot_be_sent_returns_before_what_was_typed_since() -> None:
    chat = Chat()
    async with chat.app.run_test(size=(100, 30)) as pilot:
        await chat.ready(pilot)
        chat.client.say({"closed": 1, "words": "killed"})
        await chat.until(pilot, lambda: "killed" in chat.head())
        line = chat.app.query_one("#ask", Input)
        for key in keys("Who?\nWhere?"):
            chat.app.post_message(key)
        await chat.until(pilot, lambda: line.value == "Who? Where?")


async def test_recalling_an_earlier_question_keeps_the_one_being_typed() -> None:
    chat = Chat()
    async with chat.app.run_test(size=(100, 30)) as pilot:
        await chat.ready(pilot)
        await chat.type(pilot, "Who?")
        await chat.done(pilot, ("kore", "Ada"))
        line = chat.app.query_one("#ask", Input)
        line.value = "And where"
        await pilot.press("up")
        assert line.value == "Who?"
        await pilot.press("down")
        assert line.value == "And where"


async def test_every_line_of_a_paste_arrives(picture: str) -> None:
    chat = Chat()
    async with chat.app.run_test(size=(100, 30)) as pilot:
        await chat.ready(pilot)
        line = chat.app.query_one("#ask", Input)
        chat.app.post_message(events.Paste("Who is this,\nand where?"))
        await chat.until(pilot, lambda: line.value == "Who is this, and where?")
        line.value = ""
        chat.app.post_message(events.Paste(f"'{picture}'\n'{picture}'"))
        await chat.until(pilot, lambda: line.value == "" and chat.app.pictures == [picture, picture])
