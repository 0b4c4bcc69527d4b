"""Without a named profile, settings follow the model: its run, its shipped profile, or its family's rules."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kore.artifacts.model_folder import embedded_base
from kore.artifacts.resolve_target import resolve_target
from kore.artifacts.run import Run, RunState, home
from kore.config.model_defaults import (
    describe,
    hidden_size,
    misplaced_toy,
    paper_rank,
    resolve_inference,
    resolve_training,
)


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


ARCHITECTURES = Path(__file__).parents[2] / "kore" / "models" / "architectures"


def model(folder: Path, architecture: str = "llava-1.5-7b", **changes: Any) -> str:
    """A folder with a published configuration and no weights."""
    config = json.loads((ARCHITECTURES / architecture / "config.json").read_text())
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config | changes))
    return str(folder)


def test_a_model_without_a_profile_gets_the_rules_of_its_family_and_a_line_that_says_so(
    tmp_path: Path,
) -> None:
    name = model(tmp_path / "my-llava")
    found = resolve_training(flags={"model.id": name})
    train = found.profile.train
    assert (found.profile.model.id, found.profile.adapter.rank, train.lr) == (name, 232, 2e-4)
    assert (train.epochs, train.max_steps, train.schedule, train.warmup) == (6, None, "cosine", 0.03)
    assert (train.batch, train.micro_batch, train.max_length) == (16, 1, 2048)
    assert (train.projector, found.profile.model.max_pixels) == ("off", None)
    assert found.profile.calibrate.samples == ["onevision"]
    assert found.profile.eval.max_new_tokens == 128
    assert found.origin["adapter.rank"] == "model"
    assert describe(found, "adapter.rank", "train.lr") == (
        "settings: family rules for LlavaForConditionalGeneration (hidden size 4096): rank 232, lr 2e-4; "
        f"no shipped profile names {name}"
    )


def test_the_rules_heed_free_image_sizes_short_contexts_and_models_without_images(tmp_path: Path) -> None:
    qwen = resolve_training(flags={"model.id": model(tmp_path / "my-qwen", "qwen2.5-vl-3b")}).profile
    assert (qwen.model.max_pixels, qwen.adapter.rank) == (262144, 120)
    tiled = resolve_training(flags={"model.id": model(tmp_path / "mine", "smolvlm-500m")}).profile
    assert (tiled.train.max_length, tiled.adapter.rank, tiled.train.micro_batch) == (4096, 56, None)
    text = tmp_path / "text"
    text.mkdir()
    (text / "config.json").write_text(
        json.dumps({"model_type": "llama", "hidden_size": 256, "max_position_embeddings": 1024})
    )
    plain = resolve_training(flags={"model.id": str(text)}).profile
    assert (plain.calibrate.samples, plain.train.max_length, plain.adapter.rank) == ([], 1024, 16)


@pytest.mark.parametrize(
    ("width", "rank"), [(4096, 232), (5120, 296), (3584, 208), (2560, 144), (2048, 120), (960, 56), (32, 8)]
)
def test_the_rank_is_the_papers_share_of_the_width_in_steps_of_eight(width: int, rank: int) -> None:
    assert paper_rank(width) == rank


def test_the_width_is_the_language_models_also_where_the_file_leaves_it_out() -> None:
    assert hidden_size({"hidden_size": 8, "text_config": {"hidden_size": 2560}}) == 2560
    assert hidden_size({"text_config": {"model_type": "llama"}}) == 4096  # as llava-hf/llava-1.5-7b-hf has it
    assert hidden_size({"model_type": "mystery"}) is None


@pytest.mark.parametrize(
    "place",
    ["llava-1.5-7b-hf", "hub/models--llava-hf--llava-1.5-7b-hf/snapshots/0123abc"],
)
def test_a_folder_of_a_published_model_gets_its_shipped_profile(place: str, tmp_path: Path) -> None:
    name = model(tmp_path / place)
    found = resolve_training(flags={"model.id": name})
    assert (found.name, found.profile.model.id, found.profile.adapter.rank) == ("llava-v1.5-7b", name, 235)
    line = describe(found, "adapter.rank")
    assert line == "settings: profile llava-v1.5-7b, shipped for llava-hf/llava-1.5-7b-hf: rank 235"


def test_a_folder_with_a_published_name_and_another_width_gets_the_rules(tmp_path: Path) -> None:
    name = model(tmp_path / "llava-1.5-7b-hf", "llava-1.5-13b")
    assert resolve_training(flags={"model.id": name}).profile.adapter.rank == 296


def test_the_toys_settings_are_for_kore_tiny_and_what_became_of_it_alone(tmp_path: Path) -> None:
    assert resolve_training().name == resolve_training(flags={"model.id": "kore-tiny"}).name == "tiny"
    config = json.loads((embedded_base() / "config.json").read_text())
    merged = tmp_path / "merged"
    merged.mkdir()
    (merged / "config.json").write_text(json.dumps(config | {"dtype": "float32"}))
    assert resolve_training(flags={"model.id": str(merged)}).name == "tiny"
    (merged / "config.json").write_text(json.dumps(config | {"text_config": {"hidden_size": 512}}))
    assert resolve_training(flags={"model.id": str(merged)}).profile.train.lr == 2e-4


def test_flags_come_before_the_environment_before_the_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORE_MODEL__ID", model(tmp_path / "mine"))
    monkeypatch.setenv("KORE_ADAPTER__RANK", "7")
    monkeypatch.setenv("KORE_TRAIN__LR", "1e-3")
    found = resolve_training(flags={"train.lr": "5e-4", "train.epochs": None})
    assert (found.profile.adapter.rank, found.profile.train.lr, found.profile.train.epochs) == (7, 5e-4, 6)
    assert found.origin["train.lr"] == "flag" and found.origin["adapter.rank"] == "env KORE_ADAPTER__RANK"


def test_a_named_profile_is_used_as_it_is_with_a_warning_where_it_is_the_toys(tmp_path: Path) -> None:
    name = model(tmp_path / "mine")
    found = resolve_training("tiny", {"model.id": name})
    assert (found.profile.adapter.rank, found.profile.train.max_steps) == (40, 80)
    assert found.profile.calibrate.samples == ["demo"]
    assert describe(found, "adapter.rank") is None
    warning = misplaced_toy(found)
    assert warning is not None and "rank 40, lr 2e-2, at most 80 steps" in warning and name in warning
    assert misplaced_toy(resolve_training("tiny")) is None
    assert misplaced_toy(resolve_training(flags={"model.id": name})) is None


def test_a_named_profile_without_old_samples_never_gets_the_toys_for_another_model(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(f'[model]\nid = "{model(tmp_path / "model")}"\n[adapter]\nrank = 9\n')
    found = resolve_training(str(mine)).profile
    assert (found.calibrate.samples, found.adapter.rank) == (["onevision"], 9)
    mine.write_text("[adapter]\nrank = 9\n")
    assert resolve_training(str(mine)).profile.calibrate.samples == ["demo"]


def test_after_a_run_the_model_is_that_of_the_run_read_as_it_was(tmp_path: Path) -> None:
    name = model(tmp_path / "mine")
    run = Run(made(tmp_path / "run", model={"id": name, "dtype": "bfloat16"}, train={"lr": 1.0}))
    run.adapter.mkdir()
    (run.adapter / "adapter_config.json").write_text("{}")
    found = resolve_training(after=run.folder)
    assert (found.profile.model.id, found.profile.model.dtype) == (name, "bfloat16")
    assert (found.profile.train.lr, found.profile.adapter.rank) == (2e-4, 232)
    other = resolve_training(flags={"model.id": "kore-tiny"}, after=run.folder)
    assert other.name == "tiny"


def test_a_run_by_its_name_brings_its_adapter(tmp_path: Path) -> None:
    for place in ("plain", "injected/run"):
        run = Run(made(home() / place, model={"id": "kore-tiny"}))
        run.adapter.mkdir()
        (run.adapter / "adapter_config.json").write_text("{}")
    for name, place in (("plain", "plain"), ("injected", "injected/run")):
        target = resolve_target(name)
        assert target.adapter == Run(home() / place).adapter
        assert (target.model, target.run) == ("kore-tiny", Run(home() / place))
    assert resolve_target("kore-tiny").adapter is None
    assert resolve_target("some/model").model == "some/model"


def test_settings_and_names_are_resolved_without_a_model_library(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from kore.artifacts.resolve_target import resolve_target\n"
        "from kore.config.model_defaults import resolve_training\n"
        f"print(resolve_training(flags={{'model.id': {model(tmp_path / 'mine')!r}}}).profile.adapter.rank)\n"
        f"print(resolve_target({str(tmp_path / 'mine')!r}).label)\n"
        "print({'torch', 'transformers', 'peft'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["232", "base", "set()"]
