"""CEM, F1 and the scores built on them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kore.errors import DataError
from kore.evaluation.metrics import cem, cem_clean, f1, f1_set, measure
from kore.evaluation.questions import QuestionSuite, letter_of, load_questions, rule_of, yes_or_no
from kore.evaluation.scores import hars, summarise, table
from kore.evaluation.types import Role, Scored


@pytest.mark.parametrize(
    ("prediction", "gold", "public", "clean"),
    [
        ("The capital is Lima.", "Lima", 1, 1),
        ("Limassol", "Lima", 0, 0),
        ("It has two legs", "2", 1, 1),
        ("the river Nile", "a river Nile", 1, 1),
        ("ten foot tall", "'ten foot tall'", 0, 1),
        ("'ten foot tall'", "'ten foot tall'", 0, 1),
        ("it costs $419,300 now", "$419,300", 0, 1),
        ("about 50 %", "50%", 0, 1),
        ("anything", "", 1, 0),
        ("It is A.", "A", 1, 1),
        ("It is B.", "A", 1, 0),
        ("+", "+", 0, 1),
        ("", "", 0, 1),
        ("首都は東京です", "東京", 0, 1),
        ("the answer东京tower", "tower", 0, 1),
        ("Renée O’Hara", "renée o’hara", 1, 1),
        ("x [Live] y", "(Live)", 1, 1),
    ],
)
def test_cem_is_the_public_rule_and_clean_forgives_quotes_and_signs(
    prediction: str, gold: str, public: int, clean: int
) -> None:
    assert (cem(prediction, gold), cem_clean(prediction, gold)) == (public, clean)


def test_f1_counts_repetition_and_f1_set_does_not() -> None:
    assert f1("cat cat dog", "cat dog") == pytest.approx(0.8)
    assert f1_set("cat cat dog", "cat dog") == 1.0
    assert f1("The cat!", "a cat") == 1.0
    assert f1("", "") == 1.0 and f1("a", "the") == 1.0 and f1("", "cat") == 0.0


def test_scripts_without_spaces_are_compared_by_character_and_the_result_says_so() -> None:
    found = measure("東京都です。", ["東京"])
    assert found.by_character
    assert found.f1 == pytest.approx(2 * (2 / 5) * 1 / (2 / 5 + 1))
    assert not measure("Tokyo", ["Tokyo"]).by_character
    assert measure("กรุงเทพ", ["กรุงเทพ"]).f1 == 1.0


def test_a_gold_in_a_script_without_spaces_is_covered_inside_running_text() -> None:
    assert measure("东京是日本的首都。", ["首都"]).cem == 1.0
    assert measure("大阪は都市です", ["東京"]).cem == 0.0


def test_a_gold_of_articles_or_signs_alone_does_not_match_every_prediction() -> None:
    assert measure("anything", ["The"]).cem == measure("anything", ["..."]).cem == 0.0
    assert measure("A", ["A"]).cem == 1.0


def _suite(folder: Path, role: Role, *answers: object) -> QuestionSuite:
    path = folder / "gold.jsonl"
    rows = [{"question_id": i, "text": "What?", "answer": a} for i, a in enumerate(answers)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_questions(path, role=role)


@pytest.mark.parametrize("blank", ["", "  ", [], ["x", " "]])
def test_an_empty_gold_answer_names_its_line(tmp_path: Path, blank: object) -> None:
    with pytest.raises(DataError, match="answer: must not be empty") as caught:
        _suite(tmp_path, "adaptation", "x", blank)
    assert "gold.jsonl:2" in str(caught.value.where)


@pytest.mark.parametrize("role", ["adaptation", "retention"])
def test_numbers_lists_and_characters_are_golds(tmp_path: Path, role: Role) -> None:
    suite = _suite(tmp_path, role, 5, 2.5, ["red", 7], "北京")
    scored = suite.score({"0": ["It is 5."], "1": ["2.5"], "2": ["7"], "3": ["答案是北京。"]})
    assert [v.score for v in scored.samples] == [1.0] * 4
    assert any("by character" in note for note in scored.notes)


def test_the_best_of_several_golds_counts_and_a_missing_prediction_is_zero() -> None:
    assert measure("USA", ["United States", "USA"]).cem == 1.0
    assert measure(None, [""]).cem == 0.0


@pytest.mark.parametrize(
    ("text", "letter"),
    [("B", "B"), ("(B)", "B"), ("b.", "B"), ("Answer: B", "B"), ("a cat", None), ("Bob", None), ("", None)],
)
def test_a_letter_is_read_only_where_an_answer_opens_with_one(text: str, letter: str | None) -> None:
    assert letter_of(text) == letter


def test_yes_and_no_together_are_neither() -> None:
    assert [yes_or_no(t) for t in ("Yes.", "no way", "yes and no", "maybe")] == ["Yes", "No", None, None]


@pytest.mark.parametrize(
    ("k_a", "k_r", "expected"),
    [(35.96, 40.00, 82.81), (16.77, 33.47, 63.83), (14.67, 43.00, 66.04), (36.19, 42.10, 84.93)],
)
def test_hars_gives_the_published_figures(k_a: float, k_r: float, expected: float) -> None:
    value, note = hars(k_a, 7.12, k_r, 46.74)
    assert value == pytest.approx(expected, abs=0.05) and note is None


def test_hars_says_how_its_edge_cases_are_decided() -> None:
    assert hars(5.0, 5.0, 40.0, 40.0)[0] == 0.0 and hars(3.0, 0.0, 40.0, 40.0)[0] == pytest.approx(100.0)
    value, note = hars(10.0, 5.0, 40.0, 0.0)
    assert value is None and note and "base" in note


def _scored(name: str, headline: float | None, role: Role = "retention", **more: bool) -> Scored:
    return Scored(name, role, headline, "x", {}, {}, [], **more)


def test_k_r_is_over_the_suites_that_both_models_were_scored_on() -> None:
    base = {
        s.suite: s
        for s in (_scored("a", 80), _scored("b", None), _scored("c", 40), _scored("e", 5, "adaptation"))
    }
    tuned = {
        s.suite: s
        for s in (_scored("a", 60), _scored("b", 90), _scored("c", 40), _scored("e", 50, "adaptation"))
    }
    found = summarise(tuned, base)
    assert (found.k_r, found.suites, found.of) == (50.0, 2, 3)
    assert found.k_r_share == pytest.approx(50 / 60)
    assert found.avg == 50.0


def test_near_and_label_free_suites_stay_out_of_k_r() -> None:
    scored = {
        s.suite: s
        for s in (
            _scored("far", 60),
            _scored("near", 20, near=True),
            _scored("agreement", 99, label_free=True),
        )
    }
    found = summarise(scored)
    assert (found.k_r, found.k_r_near, found.suites, found.of) == (60.0, 20.0, 1, 1)
    alone = summarise({"agreement": _scored("agreement", 99, label_free=True)})
    assert alone.k_r == 99


def test_the_untouched_base_is_always_the_first_row() -> None:
    base = {"e": _scored("e", 5, "adaptation"), "a": _scored("a", 80)}
    rows = table(base, {"kore": {"e": _scored("e", 50, "adaptation"), "a": _scored("a", 76)}})
    assert [r["method"] for r in rows] == ["base", "kore"]
    assert rows[0]["hars"] is None and rows[1]["hars"] > 0


def _write(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def test_an_evoke_file_is_scored_overall_by_kind_by_type_and_by_item(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "e.jsonl",
        {
            "question_id": 1,
            "image": "a b [x] 'y' é.jpg",
            "text": "Who?",
            "answer": "Ann",
            "type": "human",
            "cnn_wiki_type": "wiki",
            "item": "i1",
        },
        {
            "question_id": 2,
            "image": "b.jpg",
            "text": "Where?",
            "answer": "Rome",
            "type": "politics",
            "cnn_wiki_type": "news",
            "item": "i1",
        },
        {
            "question_id": 3,
            "image": "b.jpg",
            "text": "When?",
            "answer": "May",
            "type": "politics",
            "cnn_wiki_type": "news",
            "item": "i2",
        },
    )
    suite = load_questions(path)
    scored = suite.score({"1": ["Ann"], "2": ["Paris"]})
    assert scored.metrics["cem"] == pytest.approx(100 / 3)
    assert scored.metrics["cem.kind.entity"] == 100 and scored.metrics["cem.kind.news"] == 0
    assert scored.metrics["f1.type.human"] == 100 and scored.metrics["f1.type.politics"] == 0
    assert scored.headline == pytest.approx((scored.metrics["cem"] + scored.metrics["f1"]) / 2)
    assert scored.counts["missing"] == 1 and scored.samples[2].outcome == "missing"
    assert scored.items == {"i1": "partly", "i2": "not"}
    picture = next(suite.tasks()).turns[0].images[0].path
    assert picture == str(tmp_path / "a b [x] 'y' é.jpg")


@pytest.mark.parametrize(
    ("text", "answer", "rule", "prediction"),
    [
        ("Which?\nA. cat\nB. dog", "B", "letter", "B. because"),
        ("Which?\nA. cat\nB. dog", "B", "letter", "dog, so B"),
        ("Which?\nA. cat\nB. dog", "B", "letter", "dog"),
        ("Is it Peru?", "No", "yesno", "Norway, so no"),
        ("Is it?", "no", "yesno", "No."),
        ("What?", "cat", "cem", "a cat"),
        ("Which letter?", "B", "cem", "it is b"),
    ],
)
def test_a_retention_question_finds_its_rule_from_its_answer(
    tmp_path: Path, text: str, answer: str, rule: str, prediction: str
) -> None:
    path = _write(tmp_path / "l.jsonl", {"question_id": 1, "text": text, "answer": answer})
    suite = load_questions(path, role="retention")
    assert rule_of(suite.questions[0]) == rule
    assert suite.score({"1": [prediction]}).headline == 100
    assert suite.score({"1": ["zebra"]}).headline == 0


def test_only_the_wanted_split_is_read(tmp_path: Path) -> None:
    rows = [{"question_id": i, "text": "Q", "answer": "x", "split": s} for i, s in enumerate(("val", "test"))]
    path = _write(tmp_path / "s.jsonl", *rows)
    assert [q.question_id for q in load_questions(path, split="test").questions] == ["1"]
    with pytest.raises(DataError, match="no question of split"):
        load_questions(path, split="other")


def test_own_questions_are_those_of_the_split_where_they_have_one(tmp_path: Path) -> None:
    from kore.evaluation.suite_options import SuiteOptions
    from kore.evaluation.suites import resolve_suites

    rows = [
        {"question_id": i, "text": "Q", "answer": "x", "split": s}
        for i, s in enumerate(("validation", "test"))
    ]
    divided = _write(tmp_path / "d.jsonl", *rows)
    plain = _write(tmp_path / "p.jsonl", *({k: v for k, v in row.items() if k != "split"} for row in rows))
    suites = resolve_suites([str(divided), str(plain)], SuiteOptions())
    assert [len(s) for s in suites] == [1, 2]
    assert [s.facts["split"] for s in suites] == ["test", None]


def test_the_same_id_twice_is_refused(tmp_path: Path) -> None:
    row = {"question_id": 1, "text": "Q", "answer": "x"}
    with pytest.raises(DataError, match="twice"):
        load_questions(_write(tmp_path / "d.jsonl", row, row))


@pytest.mark.parametrize("place", ["", "imgs/evaluation"])
def test_evoke_is_found_as_fetched_and_as_published(tmp_path: Path, place: str) -> None:
    from kore.errors import MissingArtefact
    from kore.evaluation.suite_options import SuiteOptions
    from kore.evaluation.suites import EVOKE, resolve_suites

    with pytest.raises(MissingArtefact, match="evoke_evaluation_data") as caught:
        resolve_suites(["evoke"], SuiteOptions(data=tmp_path))
    assert "kore data fetch evoke" in str(caught.value.hint)
    folder = tmp_path / "json" / "jsonl" if place else tmp_path / "evoke"
    folder.mkdir(parents=True)
    name = "eval_wikidata_imgs/Ann's [film] é_1.jpg"
    _write(
        folder / EVOKE,
        {"question_id": 1, "image": name, "text": "Who?", "answer": "Ann", "category": "default"},
    )
    picture = (tmp_path / place if place else folder) / name
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"x")
    (suite,) = resolve_suites(["evoke"], SuiteOptions(data=tmp_path))
    assert next(iter(suite.tasks())).turns[0].images[0].path == str(picture)
