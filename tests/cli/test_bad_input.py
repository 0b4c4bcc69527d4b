"""Bad input to every command that reads files: one short error that says what and where, and exit code 3."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kore.errors import DataError
from kore_cli.commands.show import show
from kore_cli.errors import ended
from kore_cli.main import app

ITEM = {
    "id": "a",
    "kind": "entity",
    "type": "country",
    "title": "Peru",
    "text": "Its capital is Lima.",
    "facts": {"capital": "Lima"},
    "image": "good.png",
}
SAMPLE = {
    "id": "a",
    "image": "good.png",
    "conversations": [{"from": "human", "value": "<image>\nWhere?"}, {"from": "gpt", "value": "Peru"}],
}
QUESTION = {"question_id": "a", "image": "good.png", "text": "Where?", "answer": "Peru"}

Words = Callable[[str, Path], list[str]]
COMMANDS: dict[str, tuple[dict[str, Any], Words]] = {
    "augment": (ITEM, lambda file, out: ["augment", file, "-o", str(out)]),
    "inject": (ITEM, lambda file, out: ["inject", file, "-o", str(out)]),
    "train": (SAMPLE, lambda file, out: ["train", "--data", file, "--method", "lora", "-o", str(out)]),
    "calibrate": (SAMPLE, lambda file, out: ["calibrate", "--samples", file, "-o", str(out)]),
    "eval": (QUESTION, lambda file, out: ["eval", "kore-tiny", "--suite", file, "-o", str(out)]),
}
FAULTS: dict[str, tuple[Callable[[dict[str, Any]], str], str]] = {
    "missing picture": (lambda good: json.dumps({**good, "image": "none.png"}), "no such picture"),
    "unreadable": (
        lambda good: json.dumps({**good, "image": "bad.png"}),
        r"bad\.png: broken picture|broken picture:? .*bad\.png",
    ),
    "broken line": (lambda good: json.dumps(good) + '\n{"id": \n' + json.dumps(good), "records.jsonl:2"),
    "wrong type": (lambda good: json.dumps({k: 5 for k in good}), "records.jsonl:1"),
    "nothing": (lambda good: "", "file is empty"),
}


@pytest.fixture
def folder(tmp_path: Path, picture: Path) -> Path:
    shutil.copy(picture, tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"this is no picture")
    return tmp_path


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command in this process; what it said, having checked how it ended."""
    code = ended(lambda: app(words, standalone_mode=False))
    out, err = capsys.readouterr()
    assert code == 3, err
    assert out == "" and "Traceback" not in err
    errors = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, err
    return err


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_bad_file(command: str, fault: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import re

    good, words = COMMANDS[command]
    make, pattern = FAULTS[fault]
    file = folder / "records.jsonl"
    file.write_text(make(good))
    said = refused(words(str(file), folder / "out"), capsys)
    assert re.search(pattern, said), said
    assert not (folder / "out").exists() or not any((folder / "out").rglob("*.safetensors"))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_place_that_cannot_be_written(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, words = COMMANDS[command]
    file = folder / "records.jsonl"
    file.write_text(json.dumps(good))
    for more in ([], ["--dry-run"]):
        said = refused([*words(str(file), folder / "good.png" / "out"), *more], capsys)
        assert "cannot write" in said and "good.png" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_a_place_that_is_read_only(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good, words = COMMANDS[command]
    file, locked = folder / "records.jsonl", folder / "locked"
    file.write_text(json.dumps(good))
    locked.mkdir(mode=0o555)
    ways: list[list[str]] = [[], ["--dry-run"]]
    if os.access(
        locked, os.W_OK
    ):  # root may write everywhere: what asks before it works can be told otherwise
        may, ways = os.access, ways[1:]
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != locked and may(path, mode))
    for more in ways:
        said = refused([*words(str(file), locked / "out"), *more], capsys)
        assert "Permission denied" in said and "locked" in said
    assert not list(locked.iterdir())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_profile_and_a_setting_that_are_misspelt(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, words = COMMANDS[command]
    file = folder / "records.jsonl"
    file.write_text(json.dumps(good))
    line = words(str(file), folder / "out")
    assert "did you mean tiny?" in refused([*line, "--profile", "tyni"], capsys)
    assert "did you mean train.lr?" in refused([*line, "--set", "train.lrr=1"], capsys)


def test_chat_with_a_picture_that_is_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["chat", "kore-tiny", "--once", "Where?", "--image", str(folder / "none.png")]
    assert "none.png" in refused(words, capsys)


def test_a_broken_picture_among_the_old_samples_is_named_with_its_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new, old = folder / "records.jsonl", folder / "old.jsonl"
    new.write_text(json.dumps(SAMPLE))
    old.write_text(json.dumps(SAMPLE) + "\n" + json.dumps({**SAMPLE, "image": "bad.png"}))
    words = ["train", "--data", str(new), "--method", "replay", "--old", str(old), "-o", str(folder / "out")]
    assert f"{old}:2" in refused(words, capsys)


def test_show_names_the_artefacts_that_a_folder_holds(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "adapter_config.json").write_text("{}")
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="not an artefact") as caught:
        show(tmp_path)
    assert caught.value.hint == "it holds some: mine"
