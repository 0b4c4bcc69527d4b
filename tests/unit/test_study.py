"""A study: plans are checked, rates are chosen at equal K.A, tables hold means and spreads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from kore.artifacts.events import EventWriter
from kore.artifacts.manifest import Manifest, read_manifest
from kore.artifacts.run import Run
from kore.config.resolve import shipped
from kore.errors import DataError, Interrupted, MissingArtefact, ProfileError, UsageError
from kore.io.files import write_json
from kore.studies.method_study.arms import arms
from kore.studies.method_study.data import layout, suites
from kore.studies.method_study.plan import StudyPlan
from kore.studies.method_study.plot import marks_of, named, text_losses
from kore.studies.method_study.report import _case, _penalised, _tried, in_turn
from kore.studies.method_study.run import run_study
from kore.studies.method_study.study import Study, beyond, choose, trainings, unmatched
from kore.studies.method_study.tables import gains, summary
from kore.studies.method_study.trials import NOT_YET, Bench, Spec, _losses
from kore.studies.method_study.validate import check_data, read_plan
from kore.workflows import stages
from kore_cli.main import app
from tests.held import held


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


@pytest.mark.parametrize("parts", [["ablation"], ["methods", "ablation", "augmentation"]])
def test_the_default_study_gives_each_row_equally_many_rates_too(parts: list[str]) -> None:
    plan = read_plan(None, {"parts": parts})
    found = arms(plan, benches(plan))
    assert {len(arm.rates) for arm in found} == {1}
    assert next(arm.rates for arm in found if arm.label == "kore") == (2e-2,)


def test_on_other_models_the_rates_are_around_the_profiles_own() -> None:
    plan = StudyPlan(profile="llava-v1.5-7b")
    assert {m: plan.rates_of(m)[1] for m in ("lora", "kore", "full")} == {
        "lora": 2e-4,
        "kore": 2e-4,
        "full": 2e-5,
    }


def test_rows_that_two_tables_share_are_trained_once() -> None:
    plan = StudyPlan(methods=["base", "rag", "lora", "kore"], seeds_of={"kore": 3})
    assert trainings(plan) == 3 + 3 + 2
    assert trainings(plan, plan.further) == 5 + 5 + 2
    assert trainings(plan.model_copy(update={"curve_seeds": 2})) == 3 + 6 + 1
    more = plan.model_copy(update={"parts": ["methods", "ablation", "augmentation"], "strategies": ["kore"]})
    by_label = {(a.part, a.label): a for a in arms(more, benches(more))}
    assert by_label["ablation", "kore without constraint"].spec(1, 0) == by_label["methods", "lora"].spec(
        1, 0
    )
    assert trainings(more) == trainings(plan) + 3 + 3  # without augmentation, with A trained


def faked(
    monkeypatch: pytest.MonkeyPatch, points: dict[str, dict[float, tuple[float, float] | None]]
) -> list[tuple[str, float]]:
    """Rows that come from `points` (None: diverged) once they are asked for; returns what was made."""
    made: list[tuple[str, float]] = []

    def trial(self: Bench, spec: Spec, split: str, *, make: bool = True) -> dict[str, Any] | None:
        key = (spec.method, spec.rate)
        if make and key not in made:
            made.append(key)
        point = points[spec.method].get(spec.rate) if key in made else None
        self.failed[str(spec)] = NOT_YET if key not in made else "diverged"
        if point is None:
            return None
        self.failed.pop(str(spec))
        return {"lr": spec.rate, "k_a": point[0], "k_r": point[1]}

    monkeypatch.setattr(Bench, "trial", trial)
    monkeypatch.setattr(
        Bench,
        "diverged",
        lambda _, s: (s.method, s.rate) in made and points[s.method].get(s.rate) is None,
    )
    return made


def tuned(plan: StudyPlan, *, make: bool = True) -> Study:
    study = Study(plan, Path())
    study.benches = benches(plan)
    wanted = arms(plan, study.benches)
    if make:
        for arm in wanted:
            for rate in arm.rates:
                arm.bench.trial(arm.spec(rate, 0), "validation")
    study._tune(wanted, make=make)
    return study


def test_a_rate_at_the_end_of_those_tried_is_followed_by_further_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rising = {1.0: (10.0, 50.0), 2.0: (20.0, 51.0), 4.0: (30.0, 52.0), 8.0: (40.0, 53.0), 16.0: (41.0, 60.0)}
    peaked = {1.0: (10.0, 50.0), 2.0: (39.0, 55.0), 4.0: (30.0, 40.0)}
    breaks = {1.0: (10.0, 50.0), 2.0: (20.0, 51.0), 4.0: (30.0, 52.0), 8.0: None}
    never: dict[float, tuple[float, float] | None] = {1.0: None, 2.0: None, 4.0: None, 0.5: (5.0, 50.0)}
    points = {"ewc": rising, "lora": peaked, "lwf": breaks, "kore": never}
    made = faked(monkeypatch, points)  # type: ignore[arg-type]
    rates = {key: [1.0, 2.0, 4.0] for key in points}
    plan = StudyPlan(methods=list(points), rates=rates)
    study = tuned(plan)
    assert study.chosen == {"ewc": 16.0, "lora": 2.0, "lwf": 4.0, "kore": 0.5}
    told = study.tried
    assert (told["ewc"]["rates"], told["ewc"]["end"]) == ([1.0, 2.0, 4.0, 8.0, 16.0], "highest")
    assert (told["lora"]["rates"], told["lora"]["end"]) == ([1.0, 2.0, 4.0], None)
    assert (told["lwf"]["diverged"], told["lwf"]["end"]) == ([8.0], None)
    assert told["kore"]["rates"] == [0.25, 0.5, 1.0, 2.0, 4.0]
    count = len(made)
    assert tuned(plan, make=False).chosen == study.chosen and len(made) == count
    text = "\n".join(_tried(told, plan.further))
    assert "Still at an end, so that a rate further out may be better: ewc." in text
    assert "| lwf | 4 | 1, 2, 4, 8 (diverged) | 4 | no |" in text


def test_a_rate_further_that_is_not_made_yet_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    made = faked(monkeypatch, {"ewc": {1.0: (10.0, 50.0), 2.0: (20.0, 51.0)}})
    made += [("ewc", 1.0), ("ewc", 2.0)]
    study = tuned(StudyPlan(methods=["ewc"], rates={"ewc": [1.0, 2.0]}), make=False)
    assert (study.chosen["ewc"], study.tried["ewc"]["next"]) == (2.0, 4.0)
    assert "highest; 4 not made yet" in "\n".join(_tried(study.tried, 2))
    assert (
        tuned(StudyPlan(methods=["ewc"], rates={"ewc": [1.0, 2.0]}, further=0)).tried["ewc"]["next"] is None
    )


def test_one_rate_further_takes_the_step_at_its_end() -> None:
    assert beyond([1e-3, 2e-3, 8e-3], "highest") == 3.2e-2
    assert beyond([1e-3, 2e-3, 8e-3], "lowest") == 5e-4
    assert beyond([1e-3], "highest") is None and beyond([1e-3, 2e-3], None) is None


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


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("rates = {kore = []}", r"rates\.kore"),
        ("rates = {kore = [-1e-3]}", r"rates\.kore\.0.*greater than 0"),
        ("rates = {koree = [1e-3]}", r"rates: no such row: koree \(did you mean kore\?\)"),
        ("seeds_of = {lorra = 3}", r"seeds_of: no such method: lorra \(did you mean lora\?\)"),
        ("seeds_of = {lora = 0}", r"seeds_of\.lora"),
        ("limit = -1", "limit"),
        ("max_steps = 0", "max_steps"),
        ('parts = ["ranks"]\nranks = [0]', "ranks.0"),
        ('parts = ["methods", "ranks"]', "needs ranks"),
        ('strategies = ["text-awar"]', r"did you mean text-aware\?"),
        ('methods = ["kore", "kore"]', "kore is named twice"),
        ('models = ["llava-v1.5-7c"]', r"no such profile.*did you mean llava-v1\.5-7b"),
        ('profile = "tinny"', "no such profile"),
        ('models = ["tiny"]', "tiny is named twice"),
        ('models = ["llava-v1.5-7b"]\nsettings = {"model.id" = "x"}', "model.id"),
        ("seedz = 3", r"no such key: seedz \(did you mean seeds\?\)"),
        ("grid = []", "grid"),
        ("parts = 3\nranks = [1]", "parts"),
        ('settings = {"train.lrr" = 1}', r"train\.lrr"),
    ],
)
def test_what_cannot_be_in_a_plan_is_one_clear_error(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    with pytest.raises(ProfileError, match=match):
        read_plan(path, {})


def test_files_and_suites_of_a_plan_are_looked_for() -> None:
    with pytest.raises(MissingArtefact, match=r"items: no such file: gone\.jsonl"):
        check_data(StudyPlan(items="gone.jsonl", old="gone.jsonl"))
    with pytest.raises(MissingArtefact, match="notes: no such file"):
        check_data(StudyPlan(notes="gone.md"))
    with pytest.raises(UsageError, match="did you mean demo"):
        check_data(StudyPlan(suites=["demoo"]))


def test_old_samples_that_no_covariance_of_one_suite_is_made_of_are_told(tmp_path: Path) -> None:
    said = [{"from": "human", "value": "Is it?"}, {"from": "gpt", "value": "Yes"}]
    old = [{"id": "a", "conversations": said, "suite": "text"}, {"id": "b", "conversations": said}]
    (tmp_path / "old.jsonl").write_text("".join(json.dumps(s) + "\n" for s in old))
    plan = StudyPlan(items="items.jsonl", old=str(tmp_path / "old.jsonl"))
    bench = Bench(plan, "tiny", layout(plan, tmp_path), tmp_path)
    assert list(unmatched(bench, []).values()) == ["1 old samples name no suite"]
    found = unmatched(bench, [{"label": "base", "by_suite": {"choice": 1.0}}])
    assert found["gain of kore for text on its own suite"] == "no retention suite is called text"


def test_ranks_ask_for_their_table_unless_others_are_named(tmp_path: Path) -> None:
    assert read_plan(None, {"ranks": [8]}).parts == ["methods", "ranks"]
    assert read_plan(None, {"ranks": [8], "parts": ["methods"]}).parts == ["methods", "ranks"]
    path = tmp_path / "plan.toml"
    path.write_text("ranks = [8]")
    assert read_plan(path, {"parts": None}).parts == ["methods", "ranks"]
    assert read_plan(path, {"parts": ["ablation"]}).parts == ["ablation"]
    result = CliRunner().invoke(app, ["study", "--ranks", "a,b", "--dry-run"])
    assert isinstance(result.exception, UsageError) and "a,b" in str(result.exception)


def test_a_plans_folder_is_the_same_whatever_its_notes_say() -> None:
    plain = StudyPlan()
    assert plain.key == StudyPlan(notes="Read this.").key != StudyPlan(grid=[1.0]).key


def test_a_row_is_known_by_settings_of_the_evaluation_and_by_suites_that_are_files(tmp_path: Path) -> None:
    def asked(**more: Any) -> list[Any]:
        plan = StudyPlan(**more)
        return Bench(plan, "tiny", layout(plan, tmp_path), tmp_path)._asked("test")

    plain = asked()
    assert len(plain) == 6  # what a row was always known by
    assert asked(settings={"eval.max_new_tokens": 24}) == plain  # the profile's own
    assert asked(settings={"eval.max_new_tokens": 9})[6:] == [{"max_new_tokens": 9}]
    path = tmp_path / "q.jsonl"
    path.write_text("a")
    before = asked(suites=[f"{path}:retention"])
    path.write_text("b")
    assert len(before) == 7 and asked(suites=[f"{path}:retention"]) != before


def test_summaries_are_means_with_the_spread_over_seeds() -> None:
    def made(label: str, k_a: float | None) -> dict[str, Any]:
        return {"label": label, "k_a": k_a, "lr": 1e-3, "by_suite": {"a": k_a, "b": None}, "by_type_cem": {}}

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
    assert lines[-1] == "k kore, l lora" and "none" not in lines[-1]
    assert any("k" in line for line in lines[:-2])


def test_one_high_curve_does_not_squash_the_others() -> None:
    lines = text_losses({"kore": [(1, 4.0), (9, 2.0)], "lora": [(1, 4.2), (9, 3.0)], "ewc": [(1, 900.0)]})
    assert float(lines[0].split("|")[0]) == pytest.approx(8.4) and "and above" in lines[0]
    assert named({"ewc": [], "kore": []}, ["ewc"]).keys() == {"ewc (its penalty included)", "kore"}
    assert marks_of(["lora", "lora-raw", "lwf"]) == {"lora": "l", "lora-raw": "o", "lwf": "w"}


def test_a_loss_is_kept_without_its_penalty_where_that_is_told(tmp_path: Path) -> None:
    with EventWriter(tmp_path / "new") as events:
        events.write("step", step=1, loss=5.0, penalty=3.0)
        events.write("step", step=2, loss=4.0, penalty=1.0)
    with EventWriter(tmp_path / "old") as events:
        events.write("step", step=1, loss=5.0)
    assert _losses(Run(tmp_path / "new")) == ([(1, 2.0), (2, 3.0)], True)
    assert _losses(Run(tmp_path / "old")) == ([(1, 5.0)], False)
    assert _penalised({"trains": "ewc"}) and not _penalised({"trains": "kore"})
    assert not _penalised({"trains": "ewc", "penalty_apart": True})


def test_cases_come_from_every_suite_in_turn_with_their_options() -> None:
    keys = [("a", "1"), ("a", "2"), ("b", "1"), ("a", "3"), ("b", "2")]
    assert in_turn(keys) == [("a", "1"), ("b", "1"), ("a", "2"), ("b", "2"), ("a", "3")]
    verdict = {"question": "<image>\nWhat is it?\nA) bat\nB) bee\nChoose.", "answer": "B"}
    case = _case("choice", verdict, {"kore": {"prediction": "bee\n"}, "lora": {"prediction": None}})
    assert case["question"] == "What is it? A) bat B) bee Choose." and case["right"] == "B, bee"
    assert case["answers"] == {"kore": "bee", "lora": "(nothing)"}
    assert _case("text", {"question": "<image>\n", "answer": "x"}, {})["question"] == "(no text)"


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
        kept += [
            {"question_id": f"r{i}{k}", "image": f"{i}.png", "text": "Is it?", "answer": "Yes"}
            for k in range(4)
        ]
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
        methods=["base", "lora", "kore"],
        rates={"lora": [1e-3], "kore": [1e-3, 1e-2]},
        max_steps=1,
        items=str(folder / "items.jsonl"),
        old=str(folder / "samples.jsonl"),
        suites=[f"{folder / 'old.jsonl'}:retention"],
        settings=settings,
        further=0,
        notes="**Read** this.",
    )


def test_a_study_is_shown_by_its_command_report_and_rows_in_short(tmp_path: Path) -> None:
    plan = StudyPlan().model_dump(mode="json")
    manifest = Manifest("study", {}, {}, facts={"plan": plan, "command": "kore study mine.toml"})
    manifest.write(tmp_path)

    def shown() -> dict[str, Any]:
        done = CliRunner().invoke(app, ["show", str(tmp_path), "--json"])
        assert done.exit_code == 0, done.output
        value: dict[str, Any] = json.loads(done.stdout)
        return value

    assert (shown()["report"], shown()["table"], shown()["status"]) == (None, [], "partial")
    figures = {"params": 5, "k_a": 1.5, "k_r": 99.0, "avg": 50.25}
    write_json(
        tmp_path / "report" / "study.json",
        {"table": [{"label": "kore", **figures, "by_suite": {"old": 1.0}}], "missing": {"rag": "no items"}},
    )
    told = shown()
    assert told["table"] == [{"label": "kore", **figures}] and told["missing"] == ["rag"]
    assert told["command"] == "kore study mine.toml"
    assert told["report"] == str(tmp_path / "report" / "study.md")


def test_a_study_in_which_another_process_works_is_only_reported(own: StudyPlan, tmp_path: Path) -> None:
    out = tmp_path / "study"
    run_study(own, out, make=False)
    with held(out) as child:
        assert run_study(own, out, make=False)["missing"]
        with pytest.raises(DataError, match=f"in use by process {child.pid}"):
            run_study(own, out)


@pytest.mark.slow
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
    assert read_manifest(out).status == "partial"
    assert [r["label"] for r in part["table"]] == ["base", "kore"] and part["missing"]
    value = run_study(own, out, command="kore study mine.toml")
    assert len(calls) == 1 + 1 + 2  # the first, the one that was stopped, and what was left
    assert [r["label"] for r in value["table"]] == ["base", "lora", "kore"] and not value["missing"]
    kore = value["table"][2]
    assert kore["area"] is not None and value["table"][1]["area"] is not None
    assert kore["by_dimension"].keys() == {"old"}
    assert set(value["losses"]) == {"lora", "kore"}
    assert kore["steps"] == 1 and kore["by_type_cem"].keys() == kore["by_type_f1"].keys() != set()
    assert run_study(own, out)["table"] == run_study(own, out, make=False)["table"] == value["table"]
    assert len(calls) == 4
    assert value["command"] == "kore study mine.toml"
    assert read_manifest(out, kind="study").status == "done"
    with pytest.raises(DataError, match="has no manifest"):
        run_study(own, out / "report")  # of something else
    text = (out / "report" / "study.md").read_text()
    assert text.startswith("# Study\n\n**Read** this.\n")
    assert "## Rates tried" in text and "## Missing" not in text
    assert (out / "report" / "study.csv").read_text().count("\n") == 4


@pytest.mark.slow
def test_models_whose_names_differ_after_a_dot_have_rows_of_their_own(own: StudyPlan, tmp_path: Path) -> None:
    settings = dict(own.settings)
    text = (shipped() / "tiny.toml").read_text().replace('"kore-tiny"', f'"{settings.pop("model.id")}"')
    names = ["main-v1.5", "llava-v1.5-7b", "llava-v1.5-13b"]
    paths = [tmp_path / f"{name}.toml" for name in names]
    for path in paths:
        path.write_text(text)
    plan = own.model_copy(
        update={
            "profile": str(paths[0]),
            "models": [str(p) for p in paths[1:]],
            "methods": ["base"],
            "settings": settings,
        }
    )
    out = tmp_path / "study"
    value = run_study(plan, out)
    assert not value["missing"]
    assert list(value["tables"]) == ["methods", *(f"model {n}" for n in names[1:])]
    for name in names[1:]:
        rows = value["tables"][f"model {name}"]
        assert [r["label"] for r in rows] == ["base", "lora", "replay", "kore"]
        assert {r["lr"] for r in rows[1:]} == {2e-2}  # the profile's own
        assert [p.name for p in (out / "data" / name).iterdir()] == ["covariance"]
        assert len(list((out / "rows" / name / "test").glob("*.json"))) == 4
    assert "at the profile's own rate" in (out / "report" / "study.md").read_text()


@pytest.mark.slow
def test_every_part_of_a_study_side_by_side_gives_what_one_after_the_other_gives(
    own: StudyPlan, tmp_path: Path
) -> None:
    parts = {
        "parts": ["methods", "ablation", "ranks", "augmentation", "specific"],
        "ranks": [2],
        "strategies": ["text-aware", "image-agnostic", "kore"],
        "methods": ["base", "lora", "kore", "rag"],
        "seeds_of": {"kore": 2},
        "curve_seeds": 2,
    }
    plan = own.model_copy(update=parts)
    value = run_study(plan, tmp_path / "two", jobs=2)
    assert {part: [r["label"] for r in rows] for part, rows in value["tables"].items()} == {
        "methods": ["base", "lora", "kore", "rag"],
        "ablation": ["kore", "kore without augmentation", "kore without constraint", "kore with A trained"],
        "ranks": ["kore r=2"],
        "augmentation": ["lora, image-agnostic", "lora, kore"],
        "specific": ["kore", "kore for old", "kore for other"],
    }
    assert list(value["missing"]) == ["lora, text-aware", "gain of kore for other on its own suite"]
    assert "rephrases by a model; " in value["missing"]["lora, text-aware"]
    assert run_study(plan, tmp_path / "two", make=False)["missing"] == value["missing"]
    assert value["covariances"] == {"kore": 6, "kore for old": 3, "kore for other": 3}
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
