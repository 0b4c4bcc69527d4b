"""The dashboard as a person meets it: a real process in a real terminal, resized and left."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kore.artifacts.run import Run
from tests.benchmark import script

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux"),
]


@pytest.fixture(scope="module")
def terminals() -> ModuleType:
    """benchmarks/terminal.py."""
    return script("terminal")


def loaded_torch(pid: int) -> bool:
    """Whether a process has torch's library mapped."""
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text()


def ended(seen: Any, seconds: float = 30.0) -> int | None:
    """The exit code, waited for."""
    end = time.monotonic() + seconds
    while seen.exit_code is None and time.monotonic() < end:
        time.sleep(0.2)
    code: int | None = seen.exit_code
    return code


def test_every_size_and_screen_is_borne_and_q_leaves_with_zero(
    terminals: ModuleType, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_run(60, now=time.time(), pid=None).resolve()
    with terminals.Terminal([sys.executable, "-m", "kore_cli", "dashboard", str(folder)], (140, 40)) as seen:
        seen.wait_for("step 60/60", 60)
        for size in ((200, 60), (80, 24), (40, 12), (30, 8), (60, 40), (140, 40)):
            seen.resize(*size, pause=0.5)
            for key in "12345":
                seen.press(key, pause=0.3)
            assert seen.exit_code is None, seen.text()
        seen.wait_for("Knowledge", 20)
        seen.press("?", pause=1.0)
        seen.wait_for("Escape closes", 20)
        assert not loaded_torch(seen.pid)
        seen.press("Escape", "q", pause=1.0)
        assert ended(seen) == 0, seen.text()


@pytest.mark.parametrize("named", [True, False])
def test_watch_shows_the_training_and_leaving_leaves_it_running(
    named: bool, terminals: ModuleType, tiny_llava: Path, tmp_path: Path
) -> None:
    from PIL import Image

    Image.new("RGB", (32, 32), "red").save(tmp_path / "x.png")
    sample = '{"id": "s%d", "image": "x.png", "conversations": [{"from": "human", "value": "<image>\\nWho?"}, {"from": "gpt", "value": "Ada"}]}\n'
    data = tmp_path / "samples.jsonl"
    data.write_text("".join(sample % i for i in range(8)))
    words = ["train", "--data", str(data), "--method", "lora", "--model", str(tiny_llava), "--watch"]
    words += ["--max-steps", "100000", "--epochs", "1e6", "--set", "train.batch=2"]
    words += ["-o", str(tmp_path / "runs" / "run")] if named else []
    env = {"KORE_HOME": str(tmp_path / "runs")}
    with terminals.Terminal([sys.executable, "-m", "kore_cli", *words], (120, 35), env=env) as seen:
        seen.wait_for(r"step [1-9]", 120)
        run = next((tmp_path / "runs").glob("*/run.json")).parent
        state = Run(run).state()
        try:
            assert state.status == "running" and loaded_torch(state.pid) and not loaded_torch(seen.pid)
            seen.press("q")
            seen.wait_for("training continues", 60)
            assert ended(seen) == 0 and f"kill -INT {state.pid}" in seen.text().replace("\n", " ")
            seen.__exit__()  # now the terminal is closed, too
            assert loaded_torch(state.pid) and Run(run).state().status == "running"
        finally:
            os.kill(state.pid, signal.SIGINT)
        end = time.monotonic() + 60
        while Run(run).state().status == "running" and time.monotonic() < end:
            time.sleep(0.5)
    assert Run(run).state().status == "interrupted"
