"""A study: plans are checked, rates are chosen at equal K.A, tables hold means and spreads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kore.errors import ProfileError
from kore.pipeline.study import choose
from kore.pipeline.study_plan import StudyPlan, read_plan
from kore.pipeline.study_plot import text_losses
from kore.pipeline.study_report import summary


def row(lr: float, k_a: float, k_r: float) -> dict[str, Any]:
    return {"lr": lr, "k_a": k_a, "k_r": k_r}


def test_a_rate_is_chosen_by_what_is_kept_among_those_that_learn_enough() -> None:
    tried = [row(1e-3, 2.0, 60.0), row(3e-3, 20.0, 55.0), row(1e-2, 30.0, 40.0)]
    assert choose(tried, 15.0, 9.0) == 3e-3
    assert choose(tried, 25.0, 9.0) == 1e-2
    assert choose(tried, 0.0, 9.0) == 1e-3
    assert choose(tried, 99.0, 9.0) == 1e-2
    assert choose([], 15.0, 9.0) == 9.0


def test_every_method_gets_as_many_rates_to_choose_from() -> None:
    plan = StudyPlan()
    assert {len(plan.rates_of(m)) for m in plan.methods} == {3}
    assert plan.rates_of("kore")[1] == 2e-2
    plan = StudyPlan(methods=["base", "rag", "lora", "kore"], seeds_of={"kore": 3})
    assert plan.trainings() == 3 + 3 + 0 + 2


def test_plans_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text('methods = ["kore", "lorra"]\n')
    with pytest.raises(ProfileError, match="no such method: lorra"):
        read_plan(path, {})
    path.write_text("metods = []\n")
    with pytest.raises(ProfileError, match="metods"):
        read_plan(path, {})
    path.write_text("seeds = 3\n")
    assert read_plan(path, {"seeds": None}).seeds == 3
    assert read_plan(path, {"seeds": 2}).seeds == 2
    assert read_plan(None, {}).max_steps is not None


def test_summaries_are_means_with_the_spread_over_seeds() -> None:
    def made(label: str, k_a: float | None) -> dict[str, Any]:
        return {"label": label, "k_a": k_a, "lr": 1e-3, "per_suite": {"a": k_a, "b": None}, "by_type": {}}

    rows = summary([made("kore", 10.0), made("kore", 14.0), made("lora", None)], {"kore": 3.0})
    assert [r["label"] for r in rows] == ["kore", "lora"]
    assert (rows[0]["k_a"], rows[0]["seeds"], rows[0]["area"]) == (12.0, 2, 3.0)
    assert rows[0]["k_a_sd"] == pytest.approx(2.828, abs=1e-3)
    assert rows[0]["per_suite"] == {"a": 12.0, "b": None}
    assert (rows[1]["k_a"], rows[1]["k_a_sd"]) == (None, None)


def test_losses_are_drawn_in_characters() -> None:
    lines = text_losses({"kore": [(1, 4.0), (2, 2.0)], "lora": [(1, 4.0), (2, 3.0)], "none": []})
    assert lines[-1] == "k kore, o lora" and "none" not in lines[-1]
    assert any("k" in line for line in lines[:-2])


@pytest.mark.slow
def test_a_study_of_the_demo_makes_its_tables_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kore_cli", "study", "--methods", "lora,kore,rag", "--max-steps", "2"]
    command += ["--limit", "4", "--parts", "methods,ablation", "-o", str(tmp_path / "study"), "--json"]

    def go() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)

    first = go()
    assert first.returncode == 0, first.stderr
    value = json.loads(first.stdout)
    assert [r["label"] for r in value["table"]] == ["base", "lora", "kore", "rag"]
    assert {r["label"] for r in value["tables"]["ablation"]} == {
        "kore", "kore without augmentation", "kore without constraint", "kore with A trained",
    }  # fmt: skip
    for name in ("study.md", "study.csv", "study.json", "frontier.png", "losses.png"):
        assert (tmp_path / "study" / name).stat().st_size > 0
    again = go()
    assert "train" not in again.stderr
    assert json.loads(again.stdout)["table"] == value["table"]
