"""Reports and exports; and that scoring needs no model stack."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kore.evaluation.benchmark_suite import BenchSuite
from kore.evaluation.export import export_results
from kore.evaluation.html_report import write_page
from kore.evaluation.report import as_csv, as_markdown, k_r_words, summary
from kore.evaluation.runner import Result
from kore.evaluation.suite_options import SuiteOptions
from kore.evaluation.suites import resolve_suites
from tests.tsv import write_all

HEAVY = ("torch", "transformers", "peft", "openai", "pandas", "numpy", "sympy", "httpx", "PIL")


def test_scoring_a_benchmark_imports_no_model_stack() -> None:
    code = (
        "import sys; from kore.evaluation import benchmark_suite, scores, report, compare; "
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def results(tmp_path: Path) -> tuple[list[BenchSuite], dict[str, Result]]:
    """MME answered right by the base, wrong by the tuned model."""
    (suite,) = resolve_suites(["MME"], SuiteOptions(data=write_all(tmp_path / "data")))
    assert isinstance(suite, BenchSuite)
    right = {row.index: [row.get("answer")] for row in suite.rows}
    wrong = {key: ["=maybe", *rest] for key, (_, *rest) in right.items()}
    found = {}
    for label, answers in (("base", right), ("kore", wrong)):
        result = Result(label, label, {"MME": suite.score(answers)}, {"MME": dict(suite.facts)})
        found[label] = replace(result, answers={"MME": answers})
    return [suite], found


def test_the_page_shows_what_was_forgotten_with_its_picture_and_no_outside_link(
    results: tuple[list[BenchSuite], dict[str, Result]], tmp_path: Path
) -> None:
    suites, found = results
    write_page(summary(found), found, suites, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert f"MME: {len(suites[0])} forgotten by kore" in text
    assert text.count("data:image/jpeg;base64,") == len(suites[0])
    assert "http://" not in text and "https://" not in text and "<script" not in text


def test_words_of_a_model_cannot_become_markup(
    results: tuple[list[BenchSuite], dict[str, Result]], tmp_path: Path
) -> None:
    suites, found = results
    samples = [
        replace(v, prediction="<script>alert(1)</script>", question="a|b\nc")
        for v in found["kore"].scored["MME"].samples
    ]
    found["kore"].scored["MME"] = replace(found["kore"].scored["MME"], samples=samples)
    write_page(summary(found), found, suites, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "<script>" not in text and "&lt;script&gt;" in text


def test_tables_tell_k_r_with_its_count(results: tuple[list[BenchSuite], dict[str, Result]]) -> None:
    value = summary(results[1])
    base = value["table"][0]
    assert k_r_words(base).endswith("(1 of 1)") and k_r_words({"k_r": None}) == "-"
    assert "twelve" not in as_markdown(value)
    lines = list(csv.reader(as_csv(value).splitlines()))
    assert ["kore", "MME", "perception", "0.0"] in lines and lines[0] == ["model", "suite", "figure", "value"]


@pytest.mark.parametrize("prediction", ["", "\ufffe", "a\uffffb", "\x00", " "])
def test_predictions_that_a_spreadsheet_cannot_hold_are_exported(
    results: tuple[list[BenchSuite], dict[str, Result]], tmp_path: Path, prediction: str
) -> None:
    suites, found = results
    found["kore"].answers["MME"] = {row.index: [prediction] for row in suites[0].rows}
    files = {p.name: p for p in export_results(suites, found, tmp_path).files}
    with files["kore_MME.tsv"].open(newline="") as stream:
        assert {row["prediction"] for row in csv.DictReader(stream, delimiter="\t")} == {prediction}


def test_exports_hold_every_column_but_the_picture_and_read_back_as_text(
    results: tuple[list[BenchSuite], dict[str, Result]], tmp_path: Path
) -> None:
    from openpyxl import load_workbook

    suites, found = results
    url = "https://example.invalid/" + "x" * 3000
    found["kore"].answers["MME"] = {row.index: [url] for row in suites[0].rows}
    files = {p.name: p for p in export_results(suites, found, tmp_path).files}
    assert set(files) == {f"{label}_MME.{kind}" for label in ("base", "kore") for kind in ("tsv", "xlsx")}
    with files["kore_MME.tsv"].open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert (
        "image" not in rows[0] and {"index", "question", "answer", "category", "prediction"} <= rows[0].keys()
    )
    assert all(row["prediction"] == url for row in rows)
    sheet = load_workbook(files["kore_MME.xlsx"]).worksheets[0]
    cells = [row[-1] for row in sheet.iter_rows(min_row=2)]
    assert all(cell.value == url and cell.hyperlink is None and cell.data_type == "s" for cell in cells)
