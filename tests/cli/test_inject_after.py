"""kore inject --after and what goes on with it, as commands: chained, shown, asked, killed and resumed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kore.demo.archive import demo_data

DATA = demo_data()
SMALL = [
    "train.max_steps=3",
    "train.save_steps=2",
    "augment.copies=1",
    "calibrate.count=24",
    "adapter.rank=8",
    "eval.max_new_tokens=4",
]


def kore(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kore_cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def country(folder: Path, number: int) -> Path:
    """The items file of one of the demo's new countries."""
    line = json.loads((DATA / "items.jsonl").read_text().splitlines()[number])
    path = folder / f"batch{number}.jsonl"
    path.write_text(json.dumps({**line, "image": str(DATA / line["image"])}) + "\n")
    return path


def inject(items: Path, out: Path, *more: str | Path) -> list[str | Path]:
    chosen = [part for text in SMALL for part in ("--set", text)]
    questions = out.parent / "few.jsonl"
    questions.write_text("\n".join((DATA / "suites" / "text.jsonl").read_text().splitlines()[:4]) + "\n")
    return ["inject", items, "-o", out, "--suite", questions, "--json", *chosen, *more]


def test_a_run_that_is_not_there_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    done = kore(*inject(country(tmp_path, 0), tmp_path / "out", "--after", tmp_path / "nowhere"))
    assert done.returncode == 4 and "no run here" in done.stderr and not done.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_chain_is_shown_made_and_asked(tmp_path: Path) -> None:
    first, second = tmp_path / "january", tmp_path / "february"
    done = kore(*inject(country(tmp_path, 0), first))
    assert done.returncode == 0, done.stderr
    following = inject(country(tmp_path, 1), second, "--after", first / "run")
    dry = kore(*following, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    told = json.loads(dry.stdout)["after"]
    assert [batch["run"] for batch in told] == [str(first / "run")] and not second.exists()
    done = kore(*following)
    assert done.returncode == 0, done.stderr
    assert [row["method"] for row in json.loads(done.stdout)["table"]] == ["base", "before", "kore"]
    asked = kore("chat", second / "run", "--once", "Where is Peru?", "--compare", "--json")
    assert asked.returncode == 0, asked.stderr


@pytest.mark.slow
def test_a_chained_injection_killed_at_every_stage_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    first = tmp_path / "january"
    assert kore(*inject(country(tmp_path, 0), first)).returncode == 0
    arguments = ["--after", first / "run", "--set", "train.max_steps=12"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert kore(*inject(country(tmp_path, 1), whole, *arguments)).returncode == 0
    command = [sys.executable, "-m", "kore_cli", *inject(country(tmp_path, 1), broken, *arguments)]
    for seen in (
        "tree/manifest.json",
        "covariance-earlier/layer-0001.safetensors",
        "covariance/layer-0001.safetensors",
        "run/checkpoints/checkpoint-4/seal.json",
        "eval/answers/base",
    ):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            for _ in range(2400):
                if process.poll() is not None or (broken / seen).exists():
                    break
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, f"it ended before {seen}"
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    one, other = (load_file(f / "run" / "adapter" / "adapter_model.safetensors") for f in (whole, broken))
    assert one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)
