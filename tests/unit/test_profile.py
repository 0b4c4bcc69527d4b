"""A setting comes from the flag, else the environment, else the file, else the default; and says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kore.config.resolve import all_keys, resolve, shipped_names
from kore.errors import ProfileError


@pytest.fixture
def toml(tmp_path: Path) -> Any:
    def write(text: str | bytes) -> str:
        path = tmp_path / "mine.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def test_flags_come_before_the_environment_before_the_file_before_the_defaults(toml: Any) -> None:
    name = toml("[train]\nlr = 1e-3\nbatch = 3\nepochs = 2\n")
    env = {"KORE_TRAIN__LR": "2e-3", "KORE_TRAIN__BATCH": "4", "PATH": "x", "KORE_HOME": "y"}
    found = resolve(name, {"train.lr": "3e-3", "train.seed": None}, env)
    assert (found.profile.train.lr, found.origin["train.lr"]) == (3e-3, "flag")
    assert (found.profile.train.batch, found.origin["train.batch"]) == (4, "env KORE_TRAIN__BATCH")
    assert (found.profile.train.epochs, found.origin["train.epochs"]) == (2, "profile")
    assert (found.profile.train.seed, found.origin["train.seed"]) == (0, "default")
    assert found.values()["train.lr"] == 3e-3


def test_the_process_environment_is_the_default_environment(
    toml: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORE_ADAPTER__RANK", "7")
    assert resolve(toml("")).profile.adapter.rank == 7


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_profile_is_valid_and_described(name: str) -> None:
    found = resolve(name, environ={})
    assert found.profile.description
    assert found.origin.keys() == found.values().keys() >= set(all_keys())


def test_the_fingerprint_depends_on_values_not_on_where_they_came_from(toml: Any) -> None:
    name = toml("[train]\nlr = 1e-3\n")
    same = resolve(toml("[train]\nlr = 1e-3\n"), {"train.lr": "0.001"}, {})
    assert resolve(name, environ={}).fingerprint == same.fingerprint
    assert resolve(name, {"train.seed": "1"}, {}).fingerprint != same.fingerprint


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("model.id", "7", "7"),
        ("model.id", "org/name-7b", "org/name-7b"),
        ("model.id", '"quoted"', "quoted"),
        ("calibrate.layers", "3", "3"),
        ("calibrate.layers", "0-3", "0-3"),
        ("eval.suites", "mme,pope", ["mme", "pope"]),
        ("eval.suites", '["mme:3"]', ["mme:3"]),
        ("eval.suites", "mme", ["mme"]),
        ("adapter.rank", "auto", "auto"),
        ("adapter.rank", "12", 12),
        ("train.projector", "off", "off"),
        ("train.projector", "2e-6", 2e-6),
        ("train.group_by_length", "false", False),
        ("train.max_steps", "none", None),
        ("eval.judge", "none", "none"),
        ("method.ewc.strength", "0.4", 0.4),
    ],
)
def test_text_from_flags_and_variables_takes_the_settings_own_type(
    toml: Any, key: str, text: str, value: object
) -> None:
    variable = "KORE_" + key.upper().replace(".", "__")
    for flags, env in (({key: text}, {}), ({}, {variable: text})):
        found = resolve(toml(""), flags, env).values()[key]
        assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("[train]\nlr = 1\nepoch = 3\n", ":3", ["train.epoch", "did you mean train.epochs"]),
        ("[tain]\nlr = 1\n", ":1", ["tain", "did you mean train"]),
        ("lr = 1\n", ":1", ["unknown setting lr", "did you mean train.lr"]),
        ("[augment.http]\n\nurll = 'x'\n", ":3", ["did you mean augment.http.url"]),
        ("[train]\nlr = 'fast'\n", ":2", ["train.lr", "valid number", "'fast'"]),
        ("[train]\nlr = -1\n", ":2", ["train.lr", "greater than 0"]),
        ("[train]\nprojector = 'on'\n", ":2", ["train.projector", "'off' or a valid number", "'on'"]),
        ("[train]\nschedule = 'cosin'\n", ":2", ["'cosine', 'linear' or 'constant'"]),
        ("[eval]\nsuites = 'mme'\n", ":2", ["eval.suites", "valid list"]),
        ("train = 3\n", ":1", ["train", "valid dictionary"]),
        ("[train]\nlr = = 1\n", ":2", ["not TOML"]),
        ("[train]\nlr = 1\nlr = 2\n", ":3", ["not TOML"]),
        ("[train\n", ":1", ["not TOML"]),
        (b"[train]\nlr = '\xff'\n", "", ["not UTF-8"]),
    ],
)
def test_a_mistake_in_the_file_is_told_with_line_key_and_the_nearest_name(
    toml: Any, text: str | bytes, where: str, words: list[str]
) -> None:
    name = toml(text)
    with pytest.raises(ProfileError) as caught:
        resolve(name, environ={})
    assert caught.value.where == f"{name}{where}"
    assert caught.value.exit_code == 3
    for word in words:
        assert word in caught.value.message
    assert len(caught.value.lines()) <= 2 and "\n" not in str(caught.value)


def test_a_mistake_in_a_flag_or_variable_names_it_not_the_file(toml: Any) -> None:
    name = toml("[train]\nlr = 1e-3\n")
    for flags, env, where in (
        ({"train.lr": "x"}, {}, "--set train.lr"),
        ({"train.lrr": "1"}, {}, "--set train.lrr"),
        ({"train": "5"}, {}, "--set train"),
        ({"train.lr.x": "5"}, {}, "--set train.lr.x"),
        ({}, {"KORE_TRAIN__LR": "x"}, "KORE_TRAIN__LR"),
        ({}, {"KORE_TRAIN__LRR": "1"}, "KORE_TRAIN__LRR"),
    ):
        with pytest.raises(ProfileError) as caught:
            resolve(name, flags, env)
        assert caught.value.where == where


@pytest.mark.parametrize("name", ["projector", "max_steps", "micro_batch", "probe_steps"])
def test_a_rate_or_a_number_of_steps_is_not_zero(name: str) -> None:
    with pytest.raises(ProfileError, match=f"train.{name}.*greater than"):
        resolve("tiny", {f"train.{name}": "0"}, environ={})
    assert getattr(resolve("tiny", {f"train.{name}": "3"}, environ={}).profile.train, name) == 3


@pytest.mark.parametrize("name", ["tinny", "no/such.toml", "nothing-like-it"])
def test_an_unknown_profile_names_the_nearest(name: str) -> None:
    with pytest.raises(ProfileError, match="no such profile") as caught:
        resolve(name)
    assert ("did you mean tiny" in caught.value.message) == (name == "tinny")
    assert "kore profiles list" in str(caught.value.hint)


def test_a_byte_order_mark_in_the_file_is_passed_over(toml: Any) -> None:
    assert resolve(toml(b"\xef\xbb\xbf[train]\nlr = 1e-3\n"), environ={}).profile.train.lr == 1e-3


def test_every_setting_is_documented() -> None:
    from kore.config.schema import Profile

    def walk(model: Any, prefix: str = "") -> list[str]:
        missing = []
        for name, field in model.model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                missing += walk(field.annotation, f"{prefix}{name}.")
            elif not field.description:
                missing.append(prefix + name)
        return missing

    assert walk(Profile) == []
