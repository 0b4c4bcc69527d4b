"""kore demo, made small: four rows, answers, next commands; resumed after a kill, trained again on demand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kore.artifacts.run import Run, all_runs
from kore.config.resolve import Resolved
from kore.errors import UsageError
from kore.workflows import demo
from kore.workflows.demo import run_demo

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two steps a training, two questions a suite, few old samples; runs under the test's own folder."""
    monkeypatch.setenv("KORE_HOME", str(tmp_path / "runs"))
    settings = {"train.max_steps": 2, "calibrate.count": 24, "augment.copies": 1}
    resolve, suites_of = demo.resolve, demo.suites_of

    def little(profile: str, flags: dict[str, Any] | None = None) -> Resolved:
        return resolve(profile, {**settings, **(flags or {})})

    def few(bench: demo.Bench, split: str) -> list[Any]:
        return [replace(s, questions=s.questions[:2]) for s in suites_of(bench, split)]  # type: ignore[type-var]

    monkeypatch.setattr(demo, "resolve", little)
    monkeypatch.setattr("kore.workflows.trial.resolve", little)
    monkeypatch.setattr(demo, "suites_of", few)
    monkeypatch.setattr(demo, "HELD_OUT", 4)


def test_the_demo_from_items_to_answers(tmp_path: Path) -> None:
    stages: list[str] = []

    def stopped(stage: str, done: int, total: int | None = None, note: str = "") -> None:
        stages.append(stage)
        if stage == "train lora" and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_demo(progress=stopped)
    folder = tmp_path / "runs" / "demo"
    again = Run(folder / "lora").state().again
    assert again == f"kore demo -o {folder} --seed 0"
    weights = folder / "lora-raw" / "adapter" / "adapter_model.safetensors"
    before = weights.stat().st_mtime_ns
    told = run_demo().to_json()
    assert weights.stat().st_mtime_ns == before
    assert [row["method"] for row in told["table"]] == ["base", "lora-raw", "lora", "kore"]
    for row in told["table"]:
        assert all(row[key] is not None for key in ("k_a", "k_r", "k_r_near", "avg")), row
        assert (row["params"] is None) == (row["method"] == "base")
    assert len(told["retention"]) == 6 and "24 other old samples" in told["legend"]
    assert {"prepare", "base", "lora-raw", "lora", "kore"} == told["seconds"].keys()
    assert any(command.startswith(f"kore dashboard {folder / 'kore'}") for command in told["next"])
    assert all_runs()[0].folder.parent == folder
    with pytest.raises(UsageError, match="other settings") as caught:
        run_demo(folder, seed=1)
    assert "--restart" in (caught.value.hint or "")
    other = run_demo(folder, seed=1, restart=True)
    assert weights.stat().st_mtime_ns != before
    assert Run(folder / "kore").state().profile["train"]["seed"] == 1
    assert [row["method"] for row in other.table] == ["base", "lora-raw", "lora", "kore"]
