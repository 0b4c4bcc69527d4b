"""Without a named profile, what is asked brings its own settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kore.artifacts.resolve_target import resolve_target
from kore.artifacts.run import Run, RunState, home
from kore.config.model_defaults import resolve_inference


def made(folder: Path, **sections: dict[str, Any]) -> Path:
    Run(folder).write(RunState("finished", "kore", ["kore", "train"], sections))
    return folder


def test_a_run_brings_its_own_settings_of_model_and_evaluation_but_not_over_flags_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = {"id": "some/model", "max_pixels": 3136, "dtype": "bfloat16"}
    run = made(tmp_path / "run", model=model, eval={"max_new_tokens": 77, "batch": 3}, train={"lr": 1.0})
    profile = resolve_inference(str(run)).profile
    assert (profile.model.id, profile.model.max_pixels, profile.model.dtype) == tuple(model.values())
    assert (profile.eval.max_new_tokens, profile.eval.batch) == (77, 3)
    assert profile.train.lr != 1.0
    monkeypatch.setenv("KORE_EVAL__BATCH", "5")
    profile = resolve_inference(str(run), flags={"eval.max_new_tokens": "9"}).profile
    assert (profile.eval.max_new_tokens, profile.eval.batch) == (9, 5)
    assert resolve_inference(str(run), "tiny").profile.model.id == "kore-tiny"


def test_a_run_is_found_by_its_name_under_the_runs_folder_and_in_the_folder_of_an_injection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORE_HOME", str(tmp_path))
    made(home() / "mine" / "run", eval={"max_new_tokens": 77})
    made(home() / "other", eval={"max_new_tokens": 78})
    assert resolve_inference(str(home() / "mine")).profile.eval.max_new_tokens == 77
    assert resolve_inference("other").profile.eval.max_new_tokens == 78


@pytest.mark.parametrize(
    "named",
    [
        "llava-hf/llava-1.5-7b-hf",
        "/home/x/.cache/huggingface/hub/models--llava-hf--llava-1.5-7b-hf/snapshots/0123abc",  # another machine's
    ],
)
def test_a_model_and_its_adapters_bring_the_shipped_profile_that_is_for_them(
    named: str, tmp_path: Path
) -> None:
    assert resolve_inference("kore-tiny").name == "tiny"
    assert resolve_inference(named).name == "llava-v1.5-7b"
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "kore.json").write_text(json.dumps({"model": named, "method": "kore"}))
    found = resolve_inference(str(tmp_path)).profile.model
    assert (found.id, found.vision_select_layer) == ("llava-hf/llava-1.5-7b-hf", -2)
    assert resolve_target(str(tmp_path), found.id).model == "llava-hf/llava-1.5-7b-hf"


def test_an_adapter_of_a_folder_that_is_not_here_takes_the_profiles_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "kore.json").write_text(json.dumps({"model": "/not/here", "method": "kore"}))
    assert resolve_target(str(tmp_path), "kore-tiny").model == "kore-tiny"


def test_only_the_embedded_base_has_short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_inference("kore-tiny").profile.eval.max_new_tokens == 24
    assert resolve_inference("some/model").profile.eval.max_new_tokens == 128
    monkeypatch.setenv("KORE_EVAL__MAX_NEW_TOKENS", "50")
    assert resolve_inference("some/model").profile.eval.max_new_tokens == 50
