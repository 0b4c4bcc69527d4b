"""The dashboard's command off a terminal, and what its process loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kore.artifacts.events import EventWriter
from kore.artifacts.run import Run, RunState


def dashboard(*args: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a pipe."""
    return subprocess.run(
        [sys.executable, "-m", "kore_cli", "dashboard", *args], capture_output=True, text=True, timeout=120
    )


def write_run(folder: Path, status: str = "finished") -> Path:
    """A small run."""
    with EventWriter(folder) as writer:
        writer.write("step", step=1, steps=2, loss=2.0)
        writer.write(
            "probe", step=1, id="a", probe_kind="new", base="x", base_right=False, tuned="y", tuned_right=True
        )
        writer.write("step", step=2, steps=2, loss=float("nan"))
        writer.write("checkpoint", step=2, path="c/2", best=True)
    Run(folder).write(RunState(status=status, method="kore", command=["kore", "train", "x"], profile={}))  # type: ignore[arg-type]
    return folder


def test_in_a_pipe_it_prints_one_json_snapshot_and_leaves(tmp_path: Path) -> None:
    done = dashboard(str(write_run(tmp_path / "r")))
    assert done.returncode == 0 and done.stdout.count("\n") == 1
    value = json.loads(done.stdout)
    assert value["state"] == "finished" and value["step"] == 2 and value["metrics"]["loss"] is None
    assert value["probes"] == {"adapted": 1, "new": 1, "known_before": 0, "kept": 0, "old": 0, "forgotten": 0}
    assert value["best"]["path"] == "c/2" and value["next"].startswith("kore chat")


def test_without_a_run_it_says_that_it_waits_and_exits_zero(tmp_path: Path) -> None:
    done = dashboard()
    assert done.returncode == 0 and json.loads(done.stdout)["state"] == "waiting"
    done = dashboard(str(tmp_path / "later"))
    assert done.returncode == 0 and "kore train" in json.loads(done.stdout)["next"]


def test_the_newest_run_is_taken_and_a_name_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORE_HOME", str(tmp_path))
    write_run(tmp_path / "first")
    assert json.loads(dashboard().stdout)["run"] == str(tmp_path / "first")
    assert json.loads(dashboard("first").stdout)["run"] == str(tmp_path / "first")


HEAVY = ("torch", "transformers", "peft", "openai", "deepspeed")
SCREENS = """
import asyncio, sys
from pathlib import Path
from kore_cli.dashboard.app import KoreApp
from kore_cli.dashboard.watcher import RunSource
from kore.telemetry import Monitor

async def main():
    app = KoreApp(RunSource(Path(sys.argv[1]), probe=Monitor()), live=False)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        app.refresh_now()
        for key in ("1", "2", "3", "4", "5", "question_mark"):
            await pilot.press(key)
        await app.workers.wait_for_complete()

asyncio.run(main())
import kore_cli.chat.app, kore_cli.chat.child, kore_cli.chat.start, kore_cli.dashboard.train_and_watch
print([name for name in sys.argv[2:] if name in sys.modules])
"""


def test_no_screen_of_dashboard_or_chat_ever_loads_torch(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r")
    done = subprocess.run(
        [sys.executable, "-c", SCREENS, str(run), *HEAVY], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_watching_needs_a_terminal(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from kore_cli.commands.dashboard import watch; watch(['true'], Path('r'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert done.returncode == 1 and "--watch needs a terminal" in done.stderr
