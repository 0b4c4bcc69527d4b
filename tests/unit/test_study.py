"""A study: plans are checked, rates are chosen at equal K.A, tables hold means and spreads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kore.errors import Interrupted, ProfileError
from kore.pipeline import stages
from kore.pipeline.study import choose, run_study, trainings
from kore.pipeline.study_arms import arms
from kore.pipeline.study_data import layout, suites
from kore.pipeline.study_plan import StudyPlan, read_plan
from kore.pipeline.study_plot import text_losses
from kore.pipeline.study_tables import gains, summary
from kore.pipeline.study_trials import Bench
from kore.run import Run


def row(lr: float, k_a: float, k_r: float) -> dict[str, Any]:
    return {"lr": lr, "k_a": k_a, "k_r": k_r}


def test_a_rate_is_chosen_by_what_is_kept_among_those_that_learn_enough() -> None:
    tried = [row(1e-3, 2.0, 60.0), row(3e-3, 20.0, 55.0), row(1e-2, 30.0, 40.0)]
    assert choose(tried, 15.0, 9.0) == 3e-3
    assert choose(tried, 25.0, 9.0) == 1e-2
    assert choose(tried, 0.0, 9.0) == 1e-3
    assert choose(tried, 99.0, 9.0) == 1e-2
    assert choose([], 15.0, 9.0) == 9.0


def test_every_method_and_ablation_gets_as_many_rates_to_choose_from() -> None:
    plan = StudyPlan(parts=["methods", "ablation", "augmentation", "ranks"], ranks=[8])
    found = arms(plan, benches(plan))
    assert {len(arm.rates) for arm in found if arm.rate_of is None} == {3}
    assert {arm.label for arm in found if arm.rate_of} == {"kore r=8"}
    assert plan.rates_of("kore")[1] == 2e-2


def test_on_other_models_the_rates_are_around_the_profiles_own() -> None:
    plan = StudyPlan(profile="llava-v1.5-7b")
    assert {m: plan.rates_of(m)[1] for m in ("lora", "kore", "full")} == {
        "lora": 2e-4, "kore": 2e-4, "full": 2e-5,
    }  # fmt: skip


def test_rows_that_two_tables_share_are_trained_once() -> None:
    plan = StudyPlan(methods=["base", "rag", "lora", "kore"], seeds_of={"kore": 3})
    assert trainings(plan) == 3 + 3 + 2
    assert trainings(plan.model_copy(update={"curve_seeds": 2})) == 3 + 6 + 1
    more = plan.model_copy(update={"parts": ["methods", "ablation", "augmentation"], "strategies": ["kore"]})
    by_label = {(a.part, a.label): a for a in arms(more, benches(more))}
    assert by_label["ablation", "kore without constraint"].spec(1, 0) == by_label["methods", "lora"].spec(
        1, 0
    )
    assert trainings(more) == trainings(plan) + 3 + 3  # without augmentation, with A trained


def benches(plan: StudyPlan) -> dict[str, Bench]:
    return {plan.profile: Bench(plan, plan.profile, layout(plan, Path()), Path())}


def test_rates_are_chosen_on_other_questions_than_results_are_told_of(tmp_path: Path) -> None:
    path = tmp_path / "tree" / "eval.jsonl"
    path.parent.mkdir()
    asked = [{"question_id": f"q{i}", "text": "What?", "answer": "x"} for i in range(40)]
    path.write_text("".join(json.dumps(q) + "\n" for q in asked))
    plan = StudyPlan(suites=["easy-vqa"])
    data = layout(plan, tmp_path)
    halves = [{q.question_id for q in suites(plan, data, s)[0].questions} for s in ("validation", "test")]  # type: ignore[attr-defined]
    assert halves[0] | halves[1] == {q["question_id"] for q in asked} and not halves[0] & halves[1]
    few = plan.model_copy(update={"limit": 3})
    assert [len(s) for s in suites(few, data, "test")] == [3, 3]


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
        return {"label": label, "k_a": k_a, "lr": 1e-3, "by_suite": {"a": k_a, "b": None}, "by_type": {}}

    curves = {"kore": {0: {"area": 3.0, "k_r_at": None}, 1: {"area": 5.0, "k_r_at": 40.0}}}
    rows = summary([made("kore", 10.0), made("kore", 14.0), made("lora", None)], curves)
    assert [r["label"] for r in rows] == ["kore", "lora"]
    assert (rows[0]["k_a"], rows[0]["seeds"], rows[0]["area"]) == (12.0, 2, 4.0)
    assert rows[0]["k_a_sd"] == pytest.approx(2.828, abs=1e-3)
    assert rows[0]["area_sd"] == pytest.approx(1.414, abs=1e-3)
    assert (rows[0]["k_r_at"], rows[0]["k_r_at_sd"]) == (40.0, None)
    assert rows[0]["by_suite"] == {"a": 12.0, "b": None}
    assert rows[0]["by_suite_sd"]["a"] == pytest.approx(2.828, abs=1e-3)
    assert (rows[1]["k_a"], rows[1]["k_a_sd"], rows[1]["area"]) == (None, None, None)


def test_a_constraints_gain_is_told_on_its_own_suite_and_on_the_others() -> None:
    table = [
        {"label": "kore", "by_suite": {"a": 50.0, "b": 60.0, "c": 10.0}},
        {"label": "kore for a", "compared": "a", "by_suite": {"a": 57.0, "b": 59.0, "c": 12.0}},
    ]
    (row,) = gains(table)
    assert (row["own"], row["others"]) == (7.0, 0.5)
    assert gains(table[1:]) == []


def test_losses_are_drawn_in_characters() -> None:
    lines = text_losses({"kore": [(1, 4.0), (2, 2.0)], "lora": [(1, 4.0), (2, 3.0)], "none": []})
    assert lines[-1] == "k kore, o lora" and "none" not in lines[-1]
    assert any("k" in line for line in lines[:-2])


@pytest.fixture
def own(tiny_llava: Path, tmp_path: Path) -> StudyPlan:
    """A plan of two items, on a tiny model, for one step a trial."""
    folder = tmp_path / "own"
    folder.mkdir()
    items, old, kept = [], [], []
    for i, (name, capital) in enumerate({"Peru": "Lima", "Chad": "N'Djamena", "Fiji": "Suva"}.items()):
        Image.effect_noise((40, 30), 40 + 20 * i).convert("RGB").save(folder / f"{i}.png")
        text = f"{name} is a country. Its capital is {capital}."
        items.append(
            {
                "id": str(i),
                "kind": "entity",
                "type": "country",
                "title": name,
                "text": text,
                "image": f"{i}.png",
                "facts": {"capital": capital},
            }
        )
        said = [{"from": "human", "value": "<image>\nIs it?"}, {"from": "gpt", "value": "Yes"}]
        for suite in ("old", "other"):
            old.append({"id": f"{suite}{i}", "image": f"{i}.png", "conversations": said, "suite": suite})
        kept += [{"question_id": f"r{i}{k}", "image": f"{i}.png", "text": "Is it?", "answer": "Yes"}
                 for k in range(4)]  # fmt: skip
    for name, rows in (("items", items), ("samples", old), ("old", kept)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "model.id": str(tiny_llava),
        "train.batch": 2,
        "adapter.rank": 4,
        "augment.copies": 1,
        "eval.max_new_tokens": 2,
        "train.probe_share": 0,
    }
    return StudyPlan(
        methods=["base", "lora", "kore"], rates={"lora": [1e-3], "kore": [1e-3, 1e-2]}, max_steps=1,
        items=str(folder / "items.jsonl"), old=str(folder / "samples.jsonl"),
        suites=[f"{folder / 'old.jsonl'}:retention"], settings=settings,
    )  # fmt: skip


def test_a_study_reports_what_there_is_goes_on_and_trains_nothing_twice(
    own: StudyPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "study"
    empty = run_study(own.model_copy(update={"methods": [*own.methods, "rag"]}), out, make=False)
    assert empty["table"] == [] and len(empty["missing"]) >= 4 and "rag" in empty["missing"]
    real, calls = stages.train, []

    def dies(*args: Any, **rest: Any) -> Run:
        calls.append(rest.get("stage"))
        if len(calls) == 2:
            raise Interrupted("stopped")
        return real(*args, **rest)

    monkeypatch.setattr(stages, "train", dies)
    with pytest.raises(Interrupted):
        run_study(own, out)
    part = json.loads((out / "report" / "study.json").read_text())
    assert [r["label"] for r in part["table"]] == ["base", "kore"] and part["missing"]
    value = run_study(own, out, command="kore study mine.toml")
    assert len(calls) == 1 + 1 + 2  # the first, the one that was stopped, and what was left
    assert [r["label"] for r in value["table"]] == ["base", "lora", "kore"] and not value["missing"]
    kore = value["table"][2]
    assert kore["area"] is not None and value["table"][1]["area"] is not None
    assert kore["by_dimension"].keys() == {"old"}
    assert set(value["losses"]) == {"lora", "kore"}
    assert run_study(own, out)["table"] == run_study(own, out, make=False)["table"] == value["table"]
    assert len(calls) == 4
    assert value["command"] == "kore study mine.toml"
    text = (out / "report" / "study.md").read_text()
    assert "## Rates tried" in text and "## Missing" not in text
    assert (out / "report" / "study.csv").read_text().count("\n") == 4


@pytest.mark.slow
def test_every_part_of_a_study_side_by_side_gives_what_one_after_the_other_gives(
    own: StudyPlan, tmp_path: Path
) -> None:
    parts = {"parts": ["methods", "ablation", "ranks", "augmentation", "specific"], "ranks": [2],
             "strategies": ["text-aware", "image-agnostic", "kore"], "methods": ["base", "lora", "kore", "rag"],
             "seeds_of": {"kore": 2}, "curve_seeds": 2}  # fmt: skip
    plan = own.model_copy(update=parts)
    value = run_study(plan, tmp_path / "two", jobs=2)
    assert {part: [r["label"] for r in rows] for part, rows in value["tables"].items()} == {
        "methods": ["base", "lora", "kore", "rag"],
        "ablation": ["kore", "kore without augmentation", "kore without constraint", "kore with A trained"],
        "ranks": ["kore r=2"],
        "augmentation": ["lora, image-agnostic", "lora, kore"],
        "specific": ["kore", "kore for old", "kore for other"],
    }
    assert list(value["missing"]) == ["lora, text-aware"]
    assert [g["compared"] for g in value["gains"]] == ["old", "other"]
    assert value["gains"][0]["own"] is not None and value["gains"][1]["own"] is None
    kore = value["table"][2]
    assert (kore["seeds"], kore["area_sd"] is not None) == (2, True)
    for name in ("study.md", "study.csv", "study.json", "frontier.png", "losses.png", "specific.png"):
        assert (tmp_path / "two" / "report" / name).stat().st_size > 0
    assert run_study(plan, tmp_path / "one")["table"] == value["table"]


@pytest.mark.slow
def test_the_command_makes_its_tables_of_the_demo_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kore_cli", "study", "--methods", "lora,kore,rag", "--max-steps", "2"]
    command += ["--limit", "4", "--jobs", "2", "-o", str(tmp_path / "study"), "--json"]

    def go(*more: str) -> dict[str, Any]:
        done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stderr
        assert "train" not in done.stderr or not more
        return dict(json.loads(done.stdout))

    assert len(go("--report-only")["missing"]) == 4
    value = go()
    assert [r["label"] for r in value["table"]] == ["base", "lora", "kore", "rag"]
    assert go("--report-only")["table"] == value["table"]
