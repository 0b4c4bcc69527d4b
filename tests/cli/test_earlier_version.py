"""Artifacts that version 0.1.0 wrote still load: covariance, run, adapter, profile, samples, injection."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from tests.cli.command import kore

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "artifacts-0.1.0.tar.gz"


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    for path in folder.rglob("*"):
        if path.suffix in {".json", ".jsonl"}:
            path.write_text(path.read_text().replace("@HERE@", str(folder)))
    return folder


@pytest.mark.parametrize(
    "name",
    ["covariance", "run", "adapter", "samples.jsonl", "items.jsonl", "injected/tree", "injected/run"],
)
def test_show_reads_an_artifact_of_version_0_1_0(earlier: Path, name: str) -> None:
    done = kore("show", name, "--json", cwd=earlier)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[0])


def test_a_covariance_and_a_profile_of_version_0_1_0_train(earlier: Path, tmp_path: Path) -> None:
    options = ["-p", "profile.toml", "--data", "samples.jsonl", "--covariance", "covariance"]
    done = kore("train", *options, "-o", tmp_path / "run", cwd=earlier, KORE_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 3


def test_a_run_of_version_0_1_0_answers_and_exports(earlier: Path, tmp_path: Path) -> None:
    asked = kore("chat", "run", "--once", "What is the capital?", "--image", "images/1.png", cwd=earlier)
    assert asked.returncode == 0, asked.stderr
    done = kore("export", "injected/run", "--to", "merged", "-o", tmp_path / "merged", cwd=earlier)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "merged" / "config.json").is_file()


def test_items_are_injected_after_a_run_of_version_0_1_0(earlier: Path, tmp_path: Path) -> None:
    options = ["-p", "profile.toml", "--samples", "samples.jsonl", "--after", "injected/run"]
    settings = ["--set", "augment.teacher=offline", "--set", "train.max_length=400"]
    done = kore("inject", "items.jsonl", *options, *settings, "-o", tmp_path / "next", cwd=earlier)
    assert done.returncode == 0, done.stderr
