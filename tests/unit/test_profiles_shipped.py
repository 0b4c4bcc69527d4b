"""The profiles that ship hold what the paper's table says, are valid, and can be copied and changed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kore.config.resolve import resolve, shipped_names
from kore.errors import ProfileError
from kore.workflows.validate import check

PAPER = {  # rank, epochs, batch, lr, warm-up, the projector's rate, trainable
    "llava-v1.5-7b": (235, 6, 54, 2e-4, 0.03, 2e-5, 340_549_632),
    "llava-v1.5-13b": (235, 6, 32, 2e-4, 0.03, 2e-5, 531_998_720),
    "qwen2.5-vl-7b": (274, 6, 24, 2e-4, 0.1, "off", 381_022_208),
}


@pytest.mark.parametrize("name", sorted(PAPER))
def test_the_papers_profiles_carry_its_table(name: str) -> None:
    rank, epochs, batch, lr, warmup, projector, trainable = PAPER[name]
    resolved = resolve(name, environ={})
    train = resolved.profile.train
    assert (resolved.profile.adapter.rank, train.epochs, train.batch) == (rank, epochs, batch)
    assert (train.lr, train.warmup, train.schedule, train.zero) == (lr, warmup, "cosine", 3)
    assert (train.projector, train.weight_decay) == (projector, 0.0)
    if name.startswith("llava"):
        assert resolved.profile.model.vision_select_layer == -2
    else:
        assert resolved.profile.model.max_pixels == 262144
    assert check(resolved)["trainable"] == trainable


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_profile_is_valid_and_says_what_it_is_for(name: str) -> None:
    resolved = resolve(name, environ={})
    assert resolved.profile.description
    check(resolved)


def test_a_method_setting_that_does_not_exist_makes_a_profile_invalid(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[method.lwf]\ntemperature = 2\n")
    with pytest.raises(ProfileError, match=r"method\.lwf\.temperature"):
        check(resolve(str(path), environ={}))
    path.write_text("[method.lfw]\ntau = 2\n")
    with pytest.raises(ProfileError, match="no such method: lfw"):
        check(resolve(str(path), environ={}))


def kore(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kore_cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def test_list_show_copy_and_validate_in_pipes(tmp_path: Path) -> None:
    listed = kore("profiles", "list", cwd=tmp_path)
    assert {json.loads(line)["name"] for line in listed.stdout.splitlines()} >= {"tiny", *PAPER}
    copied = kore("profiles", "copy", "tiny", "mine.toml", cwd=tmp_path)
    assert copied.returncode == 0 and (tmp_path / "mine.toml").is_file()
    assert kore("profiles", "copy", "tiny", "mine.toml", cwd=tmp_path).returncode == 2
    shown = kore("profiles", "show", "mine.toml", "--set", "train.lr=3e-4", cwd=tmp_path)
    rows = {row["key"]: row for row in map(json.loads, shown.stdout.splitlines())}
    assert (rows["train.lr"]["value"], rows["train.lr"]["origin"]) == (3e-4, "flag")
    assert rows["model.id"]["origin"] == "profile"
    assert rows["train.zero"]["origin"] == "default"
    text = (tmp_path / "mine.toml").read_text().replace("epochs", "epocs")
    (tmp_path / "mine.toml").write_text(text)
    wrong = kore("profiles", "validate", "mine.toml", cwd=tmp_path)
    assert wrong.returncode == 3 and "did you mean train.epochs?" in wrong.stderr
