"""What --set says reaches the settings, whichever command is asked and whichever flags it has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from kore.config import model_defaults
from kore.config import resolve as profile
from kore_cli.help import walk
from kore_cli.main import app

# with words that lead each command to its settings
COMMANDS = {
    "augment": ["items.jsonl", "--dry-run"],
    "calibrate": ["--dry-run"],
    "train": ["--data", "samples.jsonl", "--dry-run"],
    "eval": ["kore-tiny", "--dry-run"],
    "chat": ["kore-tiny", "--once", "Who?"],
    "inject": ["items.jsonl", "--dry-run"],
    "profiles show": ["tiny"],
    "profiles validate": ["tiny"],
    "profiles suggest": ["kore-tiny", "--gpu", "24GiB"],
    "analyze capture": ["-k", "4", "--samples", "demo", "--dry-run"],
}


class Resolved(Exception):
    """Ends a command once it has its settings."""


def with_set(command: Any) -> Iterator[str]:
    for path, each in walk(command):
        if any("--set" in parameter.opts for parameter in each.params):
            yield " ".join(path)


def keep_flags(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The flags that a command resolves its settings with; the command then ends in `Resolved`."""
    seen: dict[str, Any] = {}

    def resolve(_: object, flags: dict[str, Any] | None = None, *rest: object, **named: object) -> None:
        seen.update(flags or {})
        raise Resolved

    monkeypatch.setattr(profile, "resolve", resolve)
    monkeypatch.setattr(model_defaults, "resolve_layers", resolve)
    monkeypatch.setattr("kore.workflows.suggest.resolve_layers", resolve)
    return seen


def test_every_command_with_settings_is_tried_here() -> None:
    assert set(with_set(typer.main.get_command(app))) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_loses_what_was_set(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = keep_flags(monkeypatch)
    wanted = {key: "7" for key in profile.all_keys()}
    assert {"calibrate.layers", "calibrate.seed", "model.id", "train.seed"} <= wanted.keys()
    words = [*command.split(), *COMMANDS[command]]
    done = CliRunner().invoke(app, [*words, *(w for key in wanted for w in ("--set", f"{key}=7"))])
    assert isinstance(done.exception, Resolved)
    assert {key: seen.get(key) for key in wanted} == wanted


@pytest.mark.parametrize(
    ("command", "flag", "key"),
    [
        ("calibrate", "--layers", "calibrate.layers"),
        ("inject", "--seed", "train.seed"),
        ("train", "--lr", "train.lr"),
        ("augment", "--copies", "augment.copies"),
    ],
)
def test_a_setting_stands_over_the_flag_of_the_same_key(
    command: str, flag: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = keep_flags(monkeypatch)
    done = CliRunner().invoke(app, [command, *COMMANDS[command], flag, "1", "--set", f"{key}=2"])
    assert isinstance(done.exception, Resolved) and seen[key] == "2"


def test_one_seed_draws_the_old_samples_and_trains(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = keep_flags(monkeypatch)
    CliRunner().invoke(app, ["inject", str(tmp_path / "items.jsonl"), "--seed", "5"])
    assert (seen["train.seed"], seen["calibrate.seed"]) == (5, 5)


def test_a_count_counts_each_of_onevisions_categories_and_no_other_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept: list[list[str]] = []

    def stop(profile: Any, *_: object, **__: object) -> None:
        kept.append(profile.calibrate.samples)
        raise Resolved

    monkeypatch.setattr("kore.workflows.calibrate_run.CalibrateJob", stop)
    words = ["calibrate", "-n", "2", "--samples", "onevision", "--samples", "demo"]
    for more, drawn in (
        ([], ["onevision:8", "demo"]),
        (["--set", "calibrate.count=3"], ["onevision:12", "demo"]),
        (["--set", "calibrate.samples=onevision:5"], ["onevision:5"]),
    ):
        assert isinstance(CliRunner().invoke(app, [*words, *more]).exception, Resolved)
        assert kept[-1] == drawn
