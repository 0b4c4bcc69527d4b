"""The rules that read an answer: options, yes and no, arithmetic, final answers."""

from __future__ import annotations

import time

import pytest

from kore.data.benchmark_tsv import Row
from kore.evaluation.math_eval import NoValue, equal, latex_value, plain_value
from kore.evaluation.option_matching import infer
from kore.evaluation.scorers.choice import native_letter
from kore.evaluation.scorers.judged import rating, ratings
from kore.evaluation.scorers.mathematics import extract
from kore.evaluation.scorers.scorer_context import ScorerContext
from kore.evaluation.scorers.yesno import extract as yes_or_no
from kore.evaluation.scorers.yesno import mme, native_mme, native_pope, pope

OPTIONS = {"A": "cat", "B": "dog", "C": "bird", "D": "fish"}


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        *((text, "A") for text in ("A", "(A)", "A.", "A:", "**A**", "Answer: A", "The answer is A", "A dog")),
        ("a", None),
        ("B one two three", "B"),
        ("B one two three four", None),
        ("a Dog", "B"),
        ("A or B", None),
        ("A\nB", None),
        ("C C", "C"),
        ("hotdog", "B"),
        ("a hotdog and a cat", None),
        ("", None),
        ("Cannot determine the answer", "Z"),
        ("Z", "Z"),
        ("none of these Z", "Z"),
        ("A、", None),
        ("x" * 33 + "dog", None),
        ("Failed to obtain answer via API. A", None),
    ],
)
def test_an_option_is_read_as_the_original_reads_it(answer: str, letter: str | None) -> None:
    assert infer(answer, OPTIONS) == letter


@pytest.mark.parametrize(
    "answer", ["The correct answer is **B**. A is wrong", "Option A is a cat, B is a dog. The answer is B"]
)
def test_the_later_version_reads_what_follows_answer_is(answer: str) -> None:
    assert infer(answer, OPTIONS) is None
    assert infer(answer, OPTIONS, "vlmeval-2026-06") == "B"


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ("yes:", "Unknown"),
        ("**Yes**", "Unknown"),
        ("The answer is:yes", "Unknown"),
        ("nope", "Unknown"),
        ("Yes it is. No doubt", "Unknown"),
        ("No!", "No"),
        ("yes.", "Yes"),
        ("yes/sure", "Yes"),
        ("(no)", "No"),
    ],
)
def test_yes_and_no_are_read_as_the_original_reads_them(answer: str, word: str) -> None:
    assert yes_or_no(answer) == word


def test_llavas_own_rules() -> None:
    assert [native_mme(t) for t in (" Yes, it", "no", "I say yes", "nope")] == ["Yes", "No", "Unknown", "No"]
    assert [native_pope(t) for t in ("No.", "There is not", "Maybe", "yes. no")] == ["No", "No", "Yes", "Yes"]
    row = Row("1", 2, OPTIONS)
    said = ("B", "B. dog", "The answer is B.", "(B)", "The answer is B. The answer is C.")
    assert [native_letter(t, row) for t in said] == ["B", "B", "B", None, None]


def _sheet(name: str, rows: list[dict[str, str]], said: list[str]) -> ScorerContext:
    made = [Row(str(i), i + 2, {"question": "?", **cells}) for i, cells in enumerate(rows)]
    return ScorerContext(name, made, {row.index: [text] for row, text in zip(made, said, strict=True)})


def test_always_yes_gives_mme_500_and_200() -> None:
    from kore.evaluation.scorers.yesno import PERCEPTION, REASONING

    rows = [
        {"category": category, "image_path": f"{category}.png", "answer": answer}
        for category in (*PERCEPTION, *REASONING)
        for answer in ("Yes", "No")
    ]
    scored = mme(_sheet("MME", rows, ["Yes"] * len(rows)))
    assert (scored.metrics["perception"], scored.metrics["reasoning"]) == (500, 200)
    assert scored.headline == pytest.approx(700 / 28)


def test_unknown_counts_as_no_for_popes_f1_and_as_wrong_for_accuracy() -> None:
    rows = [{"answer": answer, "category": "random"} for answer in ("Yes", "No") * 3]
    scored = pope(_sheet("POPE", rows, ["Yes", "No.", "yes", "yes", "maybe", "no"]))
    figures = [round(scored.metrics[f"Overall.{k}"], 2) for k in ("f1", "accuracy", "precision", "recall")]
    assert figures == [66.67, 66.67, 66.67, 66.67]
    assert scored.counts["unknown"] == 1


@pytest.mark.parametrize(
    ("said", "key", "same"),
    [
        ("14.0", "14", True),
        ("1/2", "0.5", True),
        ("\\frac{1}{2}", "0.5", True),
        ("\\dfrac{1}{2}", "1/2", True),
        ("1\\frac{1}{2}", "1.5", True),
        ("2^{3}", "8", True),
        ("50\\%", "0.5", True),
        ("9,000", "9000", True),
        ("$5$", "5", True),
        ("\\boxed{5}", "5", True),
        ("3:4", "0.75", True),
        ("-(5)", "-5", True),
        ("B", "b", True),
        ("5", "6", False),
        ("5 cm", "5", False),
        ("x=5", "5", False),
        ("a", "5", False),
        ("", "5", False),
        ("3 4", "7", False),
        ("max(1,5)", "5", False),
        ("\\sqrt{4}", "2", False),
        ("1/0", "1/0 ", True),
    ],
)
def test_values_are_compared_without_running_anything(said: str, key: str, same: bool) -> None:
    assert equal(said, key)[0] is same


@pytest.mark.parametrize(
    "text",
    [
        "9**9**9**9",
        "9" * 5000,
        "(" * 300 + "1" + ")" * 300,
        "1<<9999999",
        "__import__('os')",
        "2^{9^{9^{9}}}",
        "0.5^64^64^64^64^64",
        "\\frac{1}{0}",
    ],
)
def test_hostile_arithmetic_is_no_value_and_takes_no_time(text: str) -> None:
    start = time.perf_counter()
    for read in (plain_value, latex_value):
        with pytest.raises(NoValue):
            if read(text) is not None and text.startswith("("):
                raise NoValue(text)  # brackets alone are honest arithmetic
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    ("said", "wanted", "found"),
    [
        ("So the answer is (B) because", "letter", "B"),
        ("First (A), then rather (C).", "letter", "C"),
        ("We get \\boxed{12} or 13", "integer", "12"),
        ("There are 3 cats and 1,204 dogs", "integer", "1204"),
        ("about 3.50 m", "float", "3.50"),
        ("The answer is \\frac{1}{2}.", "free", "\\frac{1}{2}"),
        ("\\boxed{x^{2}+1}", "free", "x^{2}+1"),
        ("no idea", "integer", None),
        ("A cat sat", "letter", None),
    ],
)
def test_final_answers_are_extracted_by_fixed_rules(said: str, wanted: str, found: str | None) -> None:
    assert extract(said, wanted) == found


def test_a_judges_points_are_read_or_refused() -> None:
    good = "score of component 1: 1/2, total score: 8/10. Fine"
    assert rating(good, ["a"]) == {"a": 0.5, "total_score": 0.8}
    for bad in (
        "score of component 1: 1.5/2, total score: 8/10.",
        "total score: 8/10.",
        "",
        "x: 1/0, y: 1/1.",
    ):
        assert rating(bad, ["a"]) is None
    assert ratings("Fine. {'Richness': 12, 'Creativity': 'x'} bye") == {"Richness": 10}
    assert ratings("none") is None and ratings("{'a': __import__('os')}") is None
