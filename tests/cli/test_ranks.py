"""Commands on several ranks of which rank 0 fails while it works alone: all ranks end with its error."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from kore.io.jsonl import write_jsonl
from tests.held import held

pytestmark = pytest.mark.slow


@pytest.fixture
def data(tmp_path: Path) -> Path:
    Image.effect_noise((40, 30), 64).convert("RGB").save(tmp_path / "0.png")
    turns = [{"from": "human", "value": "<image>\nWhat is the capital?"}, {"from": "gpt", "value": "Lima"}]
    rows = [{"id": f"s{i}", "image": "0.png", "conversations": turns} for i in range(8)]
    write_jsonl(tmp_path / "samples.jsonl", rows)
    return tmp_path / "samples.jsonl"


def ranks(*arguments: str | Path, **environment: str) -> list[tuple[int, str]]:
    """Exit code and stderr of the command on each of two ranks, without a launcher that would end them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "CUDA_VISIBLE_DEVICES": ""}
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "kore_cli", *map(str, arguments)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), **environment},
        )
        for rank in range(2)
    ]
    try:
        errors = [child.communicate(timeout=200)[1] for child in children]
    finally:
        for child in children:
            child.kill()
    return [(child.returncode, error) for child, error in zip(children, errors, strict=True)]


def test_a_run_folder_in_use_ends_every_rank_of_a_training(
    tiny_llava: Path, data: Path, tmp_path: Path
) -> None:
    options = ["--method", "lora", "--rank", "4", "--model", tiny_llava, "--max-steps", "1"]
    out = tmp_path / "run"
    out.mkdir()
    with held(out):
        for code, error in ranks("train", "--data", data, "-o", out, *options):
            assert code == 3 and "is in use by process" in error


def test_an_error_of_the_system_on_rank_0_ends_every_rank_of_a_training(
    tiny_llava: Path, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "home").write_text("a file, so that nothing can be written below it")
    options = ["--method", "lora", "--rank", "4", "--model", tiny_llava, "--max-steps", "1"]
    first, second = ranks(
        "train", "--data", data, "-o", tmp_path / "run", *options, KORE_HOME=str(tmp_path / "home")
    )
    assert first[0] != 0 and second[0] != 0
    assert str(tmp_path / "home") in second[1]


def test_a_folder_in_use_ends_every_rank_of_an_evaluation(tiny_llava: Path, tmp_path: Path) -> None:
    rows = [{"question_id": i, "text": f"What is {i}?", "answer": "x"} for i in range(2)]
    write_jsonl(tmp_path / "eval.jsonl", rows)
    out = tmp_path / "out"
    out.mkdir()
    options = ["--suite", tmp_path / "eval.jsonl", "-o", out, "--max-new-tokens", "2"]
    with held(out):
        for code, error in ranks("eval", tiny_llava, *options):
            assert code == 3 and "is in use by process" in error


def test_a_folder_in_use_ends_every_rank_of_a_calibration(
    tiny_llava: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    options = ["--model", tiny_llava, "--samples", data, "-n", "4", "--set", "calibrate.batch=1", "-o", out]
    with held(out):
        for code, error in ranks("calibrate", *options):
            assert code == 3 and "is in use by process" in error
