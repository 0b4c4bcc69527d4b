"""A suggested profile is the fastest that the memory estimate lets onto the GPU."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from kore.config.resolve import resolve
from kore.config.schema import Profile
from kore.errors import UsageError
from kore.workflows.suggest import suggest
from kore.workflows.validate import check
from tests.cli.command import kore

LLAVA_7B = Path(__file__).parents[2] / "kore" / "models" / "architectures" / "llava-1.5-7b"
GIB = 1 << 30


def suggested(model: Path, gpu: str, **flags: Any) -> tuple[Profile, float]:
    found = suggest(str(model), gpu, {key.replace("__", "."): value for key, value in flags.items()})
    return Profile.model_validate(tomllib.loads(found.toml)), sum(found.memory.values()) / GIB


@pytest.mark.parametrize(
    ("gpu", "quantisation", "checkpointing"),
    [("141GiB", "none", False), ("24GiB", "none", True), ("16GiB", "8bit", True), ("14GiB", "4bit", True)],
)
def test_llava_7b_gives_up_checkpoint_free_steps_before_half_precision_weights(
    gpu: str, quantisation: str, checkpointing: bool
) -> None:
    profile, needed = suggested(LLAVA_7B, gpu)
    assert (profile.model.quantisation, profile.train.gradient_checkpointing) == (quantisation, checkpointing)
    assert profile.train.micro_batch is not None and profile.train.batch % profile.train.micro_batch == 0
    assert needed <= 0.85 * int(gpu.removesuffix("GiB"))
    assert (profile.adapter.rank, profile.train.lr, profile.train.zero) == (232, 2e-4, 0)


def test_what_does_not_fit_and_what_is_not_a_size_are_refused() -> None:
    with pytest.raises(UsageError, match="does not fit a GPU of 4GiB: it needs about"):
        suggest(str(LLAVA_7B), "4GiB", {})
    with pytest.raises(UsageError, match="--gpu much: invalid size"):
        suggest(str(LLAVA_7B), "much", {})


def test_given_settings_are_kept_and_lower_the_need() -> None:
    fixed, short = suggested(LLAVA_7B, "24GiB", model__quantisation="8bit", train__max_length="512")
    assert (fixed.model.quantisation, fixed.train.max_length) == ("8bit", 512)
    small, needed = suggested(
        LLAVA_7B, "24GiB", model__quantisation="8bit", adapter__rank="8", train__micro_batch="1"
    )
    assert small.train.micro_batch == 1 and needed < short


def test_the_command_prints_a_profile_that_is_valid_or_writes_it(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    config = json.loads((LLAVA_7B / "config.json").read_text())
    config["text_config"] |= {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    }
    (folder / "config.json").write_text(json.dumps(config))
    call = ["profiles", "suggest", folder, "--gpu", "24GiB"]
    done = kore(*call)
    assert done.returncode == 0, done.stderr
    profile = tomllib.loads(done.stdout)
    assert (profile["train"]["micro_batch"], profile["model"]["quantisation"]) == (16, "none")
    mine = tmp_path / "mine.toml"
    mine.write_text(done.stdout)
    assert check(resolve(str(mine), environ={}))["trainable"] > 0
    assert kore(*call, "-o", mine).returncode == 2
    written = kore(*call, "-o", tmp_path / "other.toml", "--json")
    assert json.loads(written.stdout)["memory"]["weights"] > 0
    assert (tmp_path / "other.toml").read_text() == mine.read_text()
