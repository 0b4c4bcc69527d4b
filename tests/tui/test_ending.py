"""How dashboard, chat and --watch end when they fail, and what is said of a training that is left."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.app import App

from kore.config.resolve import resolve
from kore.errors import UsageError
from kore.workflows.train_run import TrainRequest
from kore_cli.chat import app as chat_app
from kore_cli.chat import child as chat_client
from kore_cli.chat.start import open_chat
from kore_cli.chat.stdio import Plan
from kore_cli.commands.dashboard import open_dashboard, watch
from kore_cli.commands.train import _watched
from kore_cli.dashboard import train_and_watch as watching
from kore_cli.dashboard.app import KoreApp
from kore_cli.errors import ended


class Nobody:
    """A child that is never there."""

    def __init__(self, *args: object) -> None:
        pass

    def close(self) -> None:
        """Nothing to end."""


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Logs lie in the test's own folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def headless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apps that need no terminal."""
    run = App.run
    monkeypatch.setattr(App, "run", lambda self, mouse=True: run(self, headless=True))
    monkeypatch.setattr(watching, "need_terminal", lambda: None)
    monkeypatch.setattr("os.nice", lambda by: 0)
    monkeypatch.setattr(chat_client, "ChatClient", Nobody)


def fail(self: Any) -> None:
    raise RuntimeError("no such widget")


def fail_in_a_thread(self: Any) -> None:
    self.run_worker(lambda: fail(self), thread=True)


def dashboard() -> None:
    open_dashboard([Path("run")], theme="kore-dark", images="off")


def chat() -> None:
    open_chat(Plan("kore-tiny"), [], context=None, theme="kore-dark", images="off")


@pytest.mark.usefixtures("headless")
@pytest.mark.parametrize("how", [fail, fail_in_a_thread])
@pytest.mark.parametrize("opened", [dashboard, chat])
def test_a_screen_that_fails_is_told_in_words_and_exits_one(
    opened: Callable[[], None],
    how: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for app in (KoreApp, chat_app.ChatApp):
        monkeypatch.setattr(app, "on_mount", how)
    assert ended(opened) == 1
    said = capfd.readouterr()
    assert "unexpected RuntimeError: no such widget" in said.err
    assert "Traceback" not in said.out + said.err and len(said.err.splitlines()) == 2
    monkeypatch.setenv("KORE_DEBUG", "1")
    with pytest.raises(RuntimeError, match="no such widget"):
        ended(opened)


@pytest.mark.usefixtures("headless")
def test_a_dashboard_that_fails_says_that_its_training_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    child = watching.start(["sleep", "60"])
    monkeypatch.setattr(watching, "start", lambda argv: child)
    monkeypatch.setattr(KoreApp, "on_mount", fail)
    try:
        assert ended(lambda: watching.watch([], Path("run"), images="off")) == 1
        said = capsys.readouterr().err
        assert f"training continues (process {child.process.pid})" in said and "no such widget" in said
    finally:
        child.process.kill()
        child.process.wait()
        child.output.unlink()


@pytest.mark.usefixtures("headless")
def test_every_run_that_is_picked_beside_a_training_is_read_with_its_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sources = []

    def leave(self: KoreApp) -> None:
        sources.extend([self.source, self._new_source(Path("other")), self._new_source(Path("run"))])
        self.exit()

    monkeypatch.setattr(KoreApp, "on_mount", leave)
    assert watching.watch([sys.executable, "-c", "raise SystemExit(3)"], Path("run"), images="off") in (0, 3)
    first, other, again = sources
    assert first._probe is other._probe is again._probe is not None
    assert first._complaint == again._complaint != other._complaint


def left(code: str) -> watching.Child:
    """A child that has ended."""
    child = watching.start([sys.executable, "-c", code])
    child.process.wait()
    return child


@pytest.mark.parametrize(
    ("code", "exit_code", "how"),
    [
        ("import sys; sys.exit('error: no data')", 1, "training ended with exit code 1\nerror: no data\n"),
        ("print('x'); raise SystemExit(3)", 3, "training ended with exit code 3\nx\n"),
        ("import os; os.kill(os.getpid(), 9)", 137, "training was ended by signal 9\n"),
    ],
)
def test_a_training_that_failed_leaves_its_words_and_its_exit_code(
    code: str, exit_code: int, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    child = left(code)
    assert f"{child.complaint()}\n" == how
    assert watching.farewell(child, Path("run")) == exit_code
    assert capsys.readouterr().err == f"{how}its full output: {child.output}\n" and child.output.is_file()
    child.output.unlink()
    assert child.complaint() == how.split("\n")[0]


@pytest.mark.parametrize("code", [0, 130])
def test_a_training_that_ended_well_leaves_nothing(code: int, capsys: pytest.CaptureFixture[str]) -> None:
    child = left(f"raise SystemExit({code})")
    assert watching.farewell(child, Path("run")) == code
    assert bool(capsys.readouterr().err) == bool(code) and not child.output.exists()


def test_a_training_that_goes_on_is_named_with_all_that_is_needed_to_find_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    child = watching.start(["sleep", "60"])
    try:
        assert child.complaint() is None
        assert watching.farewell(child, Path("my runs/a")) == 0
        said = capsys.readouterr().err
        assert "kore dashboard 'my runs/a'\n" in said and f"kill -INT {child.process.pid}\n" in said
        assert str(child.output) in said and child.output.is_file()
    finally:
        child.process.kill()
        child.process.wait()
        child.output.unlink()


@pytest.mark.parametrize(
    ("variables", "shown"),
    [
        ({}, {"theme": "kore-dark", "images": "auto"}),
        ({"KORE_THEME": "ansi-dark", "KORE_IMAGES": "off"}, {"theme": "ansi-dark", "images": "off"}),
    ],
)
def test_watching_obeys_the_dashboards_variables(
    variables: dict[str, str], shown: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, str] = {}
    monkeypatch.setattr(watching, "watch", lambda argv, folder, **options: seen.update(options))
    for name in ("KORE_THEME", "KORE_IMAGES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    watch([], Path("run"))
    assert seen == shown
    monkeypatch.setenv("KORE_IMAGES", "none")
    with pytest.raises(UsageError, match="KORE_IMAGES: no such pictures: none"):
        watch([], Path("run"))


def test_watching_a_run_without_a_name_begins_anew_with_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[list[str]] = []

    def begin(program: str, argv: list[str]) -> None:
        begun.append(argv[3:])
        raise SystemExit

    monkeypatch.setattr(watching, "need_terminal", lambda: None)
    monkeypatch.setattr("kore.workflows.train_run.run_folder", lambda request: request.out or Path("runs/x"))
    monkeypatch.setattr(
        "kore_cli.commands.dashboard.watch", lambda argv, folder: begun.append([*argv[3:], folder])
    )
    monkeypatch.setattr("os.execv", begin)
    request = TrainRequest(resolve("tiny"), "d")
    with pytest.raises(SystemExit):
        _watched(request, ["train", "-d", "d"])
    _watched(replace(request, out=Path("r")), ["train", "-d", "d", "-o", "r"])
    assert begun == [
        ["train", "-d", "d", "--watch", "--out", "runs/x"],
        ["train", "-d", "d", "-o", "r", "--quiet", Path("r")],
    ]
