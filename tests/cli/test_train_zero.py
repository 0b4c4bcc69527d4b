"""DeepSpeed on two processes, with the configuration that KORE makes and probes during training."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kore.artifacts.events import EventTail
from kore.io.jsonl import write_jsonl
from tests.zero_probes import CASES, one

pytestmark = pytest.mark.slow
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for i in range(3):
        Image.effect_noise((40, 30), 64 + i).convert("RGB").save(tmp_path / f"{i}.png")
    rows: list[dict[str, Any]] = []
    for i in range(12):
        turns = [
            {"from": "human", "value": "<image>\nWhat is the capital?"},
            {"from": "gpt", "value": "Lima " * (1 + i % 4)},
        ]
        rows.append({"id": f"s{i}", "image": f"{i % 3}.png", "conversations": turns})
    write_jsonl(tmp_path / "samples.jsonl", rows)
    return tmp_path / "samples.jsonl"


def launch(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a module on two processes of a machine without a GPU."""
    pytest.importorskip("deepspeed")
    done = subprocess.run(
        [*LAUNCH, "-m", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def losses(run: Path) -> list[float]:
    """Of the steps, and of the probes asked between them."""
    return [e["loss"] for e in EventTail(run).read() if e["kind"] in ("step", "probe")]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.05)])
@pytest.mark.parametrize("model", ["tiny_llava", "tiny_qwen"])
def test_probes_during_zero_3_leave_the_training_as_it_is_on_one_process(
    model: str, dtype: str, tolerance: float, data: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Tolerances: sums over two halves round differently; DeepSpeed computes in bfloat16 where autocast
    keeps some operations in float32."""
    base = str(request.getfixturevalue(model))
    launch("tests.zero_probes", base, dtype, data, tmp_path / "two")
    for case in CASES:
        one(base, dtype, str(data), tmp_path / "one", 0, case)
        alone, shared = losses(tmp_path / "one" / case), losses(tmp_path / "two" / case)
        assert len(alone) == 2 + 3 * 2  # steps, and two probes before and after each
        assert shared == pytest.approx(alone, abs=tolerance)


def test_the_command_trains_a_projector_in_bfloat16_under_zero_3_with_probes(
    tiny_llava: Path, data: Path, tmp_path: Path
) -> None:
    probes = tmp_path / "probes.jsonl"
    kinds = ("new", "old")
    write_jsonl(
        probes,
        [{"id": k, "kind": k, "question": "Which?", "answer": "Lima", "image": "0.png"} for k in kinds],
    )
    settings = [
        "train.zero=3",
        "model.dtype=bfloat16",
        "train.projector=1e-3",
        "train.batch=4",
        "train.lr=1e-2",
    ]
    options = ["--method", "lora", "--rank", "4", "--max-steps", "3", "--probes", probes]
    chosen = [part for s in settings for part in ("--set", s)]
    done = launch(
        "kore_cli", "train", "--data", data, "--model", tiny_llava, "-o", tmp_path / "run", *options, *chosen
    )
    value = json.loads(done.stdout)
    assert (
        value["steps"] == 3 and math.isfinite(value["loss"]) and set(value["scores"]) == {"new", "old", "avg"}
    )
    saved = {p.name for p in (tmp_path / "run" / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= saved
