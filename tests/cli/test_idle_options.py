"""Options that could have no effect are refused with what they need."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from kore.errors import MissingArtefact, UsageError
from kore_cli.chat import stdio as chat_pipe
from kore_cli.main import app


def fault(*arguments: str) -> BaseException | None:
    return CliRunner().invoke(app, list(arguments)).exception


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rank", "8", "--budget", "1M"], "--rank 8 has no effect beside --budget"),
        (["--rank", "8", "--keep-energy", "0.9"], "--rank 8 has no effect beside --keep-energy"),
        (["--rank", "8", "--set", "adapter.keep=0.9"], "--rank 8 has no effect beside --keep-energy"),
        (["--new-covariance", "nowhere"], "--new-covariance has no effect on the paper's basis"),
        (
            ["--contrast", "0", "--new-covariance", "nowhere"],
            "--new-covariance has no effect on the paper's basis",
        ),
    ],
)
def test_training_options_without_effect_are_refused(options: list[str], message: str) -> None:
    error = fault("train", "-d", "nowhere", *options)
    assert isinstance(error, UsageError)
    assert message in str(error)


@pytest.mark.parametrize(
    "options",
    [
        ["--rank", "auto", "--budget", "1M"],  # the profile's own rank gives way too
        ["--keep-energy", "0.9", "--budget", "1M"],
        ["--contrast", "0.5", "--new-covariance", "nowhere"],
        ["--set", "adapter.basis=contrast", "--new-covariance", "nowhere"],
    ],
)
def test_training_options_that_go_together_are_not(options: list[str]) -> None:
    error = fault("train", "-d", "nowhere", *options)
    assert isinstance(error, MissingArtefact)
    assert "no such file: nowhere" in str(error)


def test_new_samples_without_auto_layers_are_refused() -> None:
    error = fault("calibrate", "--new", "new.jsonl")
    assert isinstance(error, UsageError)
    assert "--new has no effect without --layers auto" in str(error)
    error = fault("calibrate", "--new", "nowhere.jsonl", "--layers", "auto")
    assert isinstance(error, MissingArtefact)
    assert "no such file" in str(error)


def test_a_rank_to_show_is_at_least_one() -> None:
    assert "greater than or equal to 1" in CliRunner().invoke(app, ["show", ".", "--rank", "0"]).output


@pytest.mark.parametrize(
    "options",
    [["--adapter", "runs/a"], ["--context"], ["--no-context"], ["--theme", "ansi-dark"], ["--images", "off"]],
)
@pytest.mark.parametrize("how", [["--once", "Who?"], ["--json"], ["--stream"], []])
def test_what_only_the_chats_screen_heeds_is_refused_without_it(how: list[str], options: list[str]) -> None:
    done = CliRunner().invoke(app, ["chat", "nowhere", *how, *options])
    assert isinstance(done.exception, UsageError)
    assert f"{options[0].replace('no-', '')} has no effect without the screen" in str(done.exception)


@pytest.mark.parametrize(
    "options",
    [
        ["--max-size", "1"],
        ["--hub", "http://x"],
        ["--server", "http://x"],
        ["--allow-private"],
        ["--data-dir", "x"],
    ],
)
def test_what_fetching_a_model_does_not_heed_is_refused(options: list[str]) -> None:
    for names in (["org/model"], ["MME", "org/model"]):
        done = CliRunner().invoke(app, ["data", "fetch", *names, *options])
        assert isinstance(done.exception, UsageError)
        assert f"{options[0]} has no effect on a model (org/model)" in str(done.exception)


def test_a_mirror_in_the_environment_is_no_option_of_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        "kore.evaluation.benchmark_files.Fetcher.fetch", lambda self, name: asked.append(name) or []
    )
    done = CliRunner().invoke(app, ["data", "fetch", "org/model"], env={"HF_ENDPOINT": "http://x"})
    assert done.exit_code == 0 and asked == ["org/model"]


def test_variables_that_only_the_chats_screen_heeds_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_pipe, "answer_lines", lambda plan: None)
    done = CliRunner().invoke(app, ["chat"], env={"KORE_THEME": "ansi-dark", "KORE_IMAGES": "off"})
    assert done.exit_code == 0 and done.exception is None
    assert CliRunner().invoke(app, ["chat", "--images", "none"]).exit_code == 2
