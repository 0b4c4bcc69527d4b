"""Commands take the settings that go with the model, and say on stderr which these are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kore.io.jsonl import write_jsonl
from tests.cli.command import kore, loaded

ITEM = {"id": "lima", "title": "Lima", "facts": ["Lima is the capital of Peru."]}


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    path = tmp_path / "old.jsonl"
    turns = [{"from": "human", "value": "What is this?"}, {"from": "gpt", "value": "A sign."}]
    write_jsonl(path, [{"id": str(n), "conversations": turns} for n in range(12)])
    return path


def test_calibrate_and_train_follow_the_model(tiny_llava: Path, samples: Path, tmp_path: Path) -> None:
    call = ["--model", tiny_llava, "--dry-run", "--json"]
    done = kore("calibrate", *call, "--samples", samples, "-o", tmp_path / "sums")
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    assert "settings: family rules for LlavaForConditionalGeneration (hidden size 32)" in done.stderr
    done = kore("train", *call, "--data", samples, "-m", "lora", "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["batch"] == 16
    assert "rank 8, lr 2e-4; no shipped profile names" in done.stderr
    quiet = kore("train", *call, "--data", samples, "-m", "lora", "-o", tmp_path / "run", "--quiet")
    assert "settings" not in quiet.stderr


def test_without_old_samples_the_error_names_the_ways_to_get_some(tiny_llava: Path, tmp_path: Path) -> None:
    done = kore("calibrate", "--model", tiny_llava, "-o", tmp_path / "sums", KORE_DATA=str(tmp_path))
    assert done.returncode == 4 and done.stdout == ""
    for words in ("kore data fetch onevision", "--samples FILE.jsonl", "bench:NAME"):
        assert words in done.stderr


def test_the_toys_profile_named_for_another_model_is_used_with_a_warning(
    tiny_llava: Path, samples: Path, tmp_path: Path
) -> None:
    call = ["train", "--profile", "tiny", "--data", samples, "-m", "lora", "--dry-run", "--json"]
    done = kore(*call, "--model", tiny_llava, "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "warning: profile tiny is made for kore-tiny (rank 40, lr 2e-2, at most 80 steps)" in done.stderr
    assert json.loads(done.stdout)["batch"] == 32


def test_augment_says_whose_teacher_it_takes_before_any_model_library(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "items.jsonl", [ITEM])
    call = ["augment", str(tmp_path / "items.jsonl"), "--dry-run", "--json"]
    done, modules = loaded(tmp_path, *call)
    assert "settings: profile tiny, shipped for kore-tiny: teacher offline; no model is named" in done.stderr
    done, modules = loaded(tmp_path, *call, "--set", "model.id=llava-hf/llava-1.5-7b-hf")
    assert "teacher openai:gpt-4o" in done.stderr and "torch" not in modules


def test_a_model_in_the_hub_cache_gets_the_rules_of_its_own_config(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "items.jsonl", [ITEM])
    place = tmp_path / "hub" / "models--org--mine"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("abc")
    (place / "snapshots" / "abc").mkdir(parents=True)
    config = {"architectures": ["MineForConditionalGeneration"], "text_config": {"hidden_size": 2560}}
    (place / "snapshots" / "abc" / "config.json").write_text(json.dumps(config))
    call = ["augment", str(tmp_path / "items.jsonl"), "--dry-run", "--json", "--set", "model.id=org/mine"]
    done, modules = loaded(tmp_path, *call, HF_HUB_CACHE=str(tmp_path / "hub"))
    assert "family rules for MineForConditionalGeneration (hidden size 2560): teacher offline" in done.stderr
    assert "torch" not in modules


def test_eval_of_a_run_by_its_name_evaluates_its_adapter(samples: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    trained = kore(
        "train", "--data", samples, "-m", "lora", "--max-steps", "1", "-o", home / "mine", KORE_HOME=str(home)
    )
    assert trained.returncode == 0, trained.stderr
    call = ["--suite", "demo", "--dry-run", "--json"]
    named = kore("eval", "mine", *call, KORE_HOME=str(home))
    assert named.returncode == 0, named.stderr
    assert json.loads(named.stdout)["adapter"] == str(home / "mine" / "adapter")
    assert json.loads(named.stdout)["out"] == str(home / "mine" / "eval" / "results")
    assert kore("show", "mine", KORE_HOME=str(home)).returncode == 0
    after = ["train", "--data", samples, "-m", "lora", "--dry-run", "--json", "-o", home / "next"]
    done = kore(*after, "--after", "mine", KORE_HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert "the model of" in done.stderr
