"""What the terminal is told of stages where no bar can be drawn."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kore import progress
from kore.artifacts.run import Run, RunState
from kore_cli.commands.show import show
from kore_cli.render import progress_display as story


def test_a_long_stage_says_how_far_it_is_and_a_short_one_only_that_it_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    out: Any = SimpleNamespace(live=False, note=told.append)
    with story.story(out) as tell:
        tell("augment", 1, 2)
        tell("augment", 2, 2)
        for step in range(1, 101):
            clock[0] += 1.0
            tell("train", step, 100, "loss 0.5")
    assert told == [
        "augment (0 s)",
        *(f"train {step} of 100: loss 0.5" for step in (30, 60, 90)),
        "train (99 s): loss 0.5",
    ]


def test_a_killed_run_inside_an_injections_folder_is_shown_as_dead(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine" / "run"
    folder.mkdir(parents=True)
    Run(folder).write(RunState("running", "kore", ["kore"], {}, pid=2**22 + 1))
    show(tmp_path / "mine")
    assert '"status": "dead"' in capsys.readouterr().out
