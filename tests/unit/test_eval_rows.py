"""Benchmark files: pictures, prompts, and every defect named with file and line."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kore.data.benchmark_prompts import PromptForm, task_of
from kore.data.benchmark_tsv import read_rows
from kore.data.benchmarks import ALL, NAMES, find
from kore.errors import DataError, MissingArtefact, UsageError
from kore.evaluation.benchmark_suite import load_benchmark, load_own, narrow
from kore.evaluation.suite_options import SuiteOptions
from kore.evaluation.suites import resolve_suites
from tests.tsv import picture, write_all, write_tsv

ROW = {"index": "1", "question": "What?", "answer": "A", "A": "cat", "B": "dog", "image": picture(1)}


def test_the_twelve_are_twelve_with_one_default_each() -> None:
    assert len(NAMES) == 12 and len({find(n).title.split("_")[0] for n in NAMES}) == 12
    assert {b.dimension for b in ALL} == {"COM", "OCR", "M-DIS", "INS", "M-IDU", "MAT", "HAL"}
    assert find("MathVision").name == "MathVision" and find("MMBench").name == "MMBench_DEV_EN"
    assert all(len(b.md5) == 32 for b in ALL)


def test_shared_pictures_lists_and_paths_are_resolved(tmp_path: Path) -> None:
    several = repr([picture(2), picture(3)])
    path = write_tsv(
        tmp_path / "t.tsv",
        [
            ROW,
            {**ROW, "index": "2", "image": "1"},
            {**ROW, "index": "3", "image": several},
            {**ROW, "index": "4", "image": ""},
        ],
    )
    rows = read_rows(path)
    assert [r.index for r in rows] == ["1", "2", "3"]
    assert rows[1].images == rows[0].images and len(rows[2].images) == 2
    assert rows[2].image_names == ("3_0.png", "3_1.png") and rows[0].images[0].startswith(b"\x89PNG")


def test_options_that_pandas_reads_as_empty_are_no_options_in_benchmarks_but_are_in_own_files(
    tmp_path: Path,
) -> None:
    path = write_tsv(tmp_path / "t.tsv", [{**ROW, "B": "None", "C": "NA"}])
    assert set(read_rows(path)[0].options) == {"A"}
    assert set(read_rows(path, pandas_empty=False)[0].options) == {"A", "B", "C"}


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        ({"image": "not base64!" * 20}, 2, "not base64"),
        ({"image": "7"}, 2, "points to row 7"),
        ({"image": "['x" + "y" * 80 + "]"}, 2, "not a list"),
        ({"index": ""}, 2, "index is empty"),
        ({"question": ""}, 2, "question is empty"),
        ({"answer": " "}, 2, "answer is empty"),
        ({"answer": "E"}, 2, "not one of the options"),
        ({"image": base64.b64encode(b"").decode()}, None, "no row with an image"),
    ],
)
def test_a_defect_names_file_and_line(
    tmp_path: Path, change: dict[str, str], line: int | None, words: str
) -> None:
    path = write_tsv(tmp_path / "t.tsv", [{**ROW, **change}])
    with pytest.raises(DataError, match=words) as caught:
        load_own(path, "mcq", SuiteOptions())
    where = str(path) if line is None else f"{path}:{line}"
    assert caught.value.where == where and caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty file"),
        ("index\tquestion\n1\tx\n", "no column"),
        ("index\tquestion\tanswer\tA\tB\n1\tx\tA\ta\tb\n", "image"),
        ("index\tquestion\tanswer\tA\tB\timage\n1\tx\tA\n", "3 cells, the header has 6"),
        ("index\tindex\tquestion\tanswer\tA\tB\timage\n", "twice"),
        ('index\tquestion\tanswer\tA\tB\timage\n1\t"x\n', "not a TSV file"),
    ],
)
def test_a_file_of_another_shape_is_one_error(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "t.tsv"
    path.write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        load_own(path, "mcq", SuiteOptions())
    assert str(path) in str(caught.value)


def test_the_same_index_twice_and_text_that_is_not_utf8_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="index 1 twice") as caught:
        read_rows(write_tsv(tmp_path / "t.tsv", [ROW, ROW]))
    assert str(caught.value.where).endswith(":3")
    (tmp_path / "u.tsv").write_bytes(b"index\tquestion\timage\n1\t\xff\tx\n")
    with pytest.raises(DataError, match="not UTF-8"):
        read_rows(tmp_path / "u.tsv")


def test_a_truncated_picture_names_the_sample_when_it_is_opened(tmp_path: Path) -> None:
    from kore.evaluation.runner import build_prompt

    data = base64.b64decode(picture(1))[:60] + b"\x00" * 40
    path = write_tsv(tmp_path / "t.tsv", [{**ROW, "image": base64.b64encode(data).decode()}])
    with pytest.raises(DataError, match="broken picture") as caught:
        build_prompt(next(load_own(path, "mcq", SuiteOptions()).tasks()), [])
    assert "t.tsv:2" in str(caught.value)


def test_prompts_have_the_protocols_form(tmp_path: Path) -> None:
    row = read_rows(write_tsv(tmp_path / "t.tsv", [{**ROW, "hint": "Look."}]))[0]
    default = task_of(row, "mcq").turns[0].text
    assert default == (
        "<image>\nHint: Look.\nQuestion: What?\nOptions:\nA. cat\nB. dog\n"
        "Please select the correct answer from the options above. \n"
    )
    llava = task_of(row, "mcq", PromptForm(style="llava")).turns[0].text
    assert llava.startswith("<image>\nLook.\nWhat?\nA. cat\nB. dog\n")
    assert llava.endswith("\nAnswer with the option's letter from the given choices directly.")
    assert task_of(row, "pope").turns[0].text == "<image>\nWhat?"
    assert task_of(row, "vqa").turns[0].text.endswith("\nAnswer the question using a single word or phrase.")
    native = task_of(row, "pope", PromptForm("llava-native")).turns[0].text
    assert native == "<image>\nWhat?\nAnswer the question using a single word or phrase."


def test_pictures_stand_where_the_text_names_them(tmp_path: Path) -> None:
    row = {
        **ROW,
        "question": "See <image 2> then <image 1> and <image>?",
        "image": repr([picture(1), picture(2)]),
    }
    loaded = read_rows(write_tsv(tmp_path / "t.tsv", [row]))[0]
    ask = task_of(loaded, "mmmu").turns[0]
    assert ask.text.startswith("Question: See <image> then <image> and <image >?")
    assert [p.path for p in ask.images] == ["1_1.png", "1_0.png"]
    wrong = read_rows(write_tsv(tmp_path / "w.tsv", [{**row, "question": "<image 3>"}]))[0]
    with pytest.raises(DataError, match="of 2 images"):
        task_of(wrong, "mmmu")


def test_a_dialogue_takes_its_pictures_in_order(tmp_path: Path) -> None:
    asked = ["<ImageHere> and <ImageHere>", "then <ImageHere>?", "so?"]
    row = {"index": "1", "question": repr(asked), "answer": repr(["a", "b", "c"])}
    row["image"] = repr([picture(i) for i in range(3)])
    task = task_of(read_rows(write_tsv(tmp_path / "t.tsv", [row]))[0], "mmdu")
    assert [len(a.images) for a in task.turns] == [2, 1, 0]
    assert task.turns[0].text == "<image> and <image>"


def test_all_twelve_are_read_and_narrowed(tmp_path: Path) -> None:
    choice = SuiteOptions(data=write_all(tmp_path))
    suites = resolve_suites(["benchmarks"], choice)
    assert [s.name for s in suites] == list(NAMES)
    assert all(s.facts["warnings"] for s in suites)
    circular = load_benchmark("MMBench", choice)
    one = narrow(circular, SuiteOptions(limit=1))
    assert len(one.rows) > 1 and len({int(r.index) % 1_000_000 for r in one.rows}) == 1


def test_unknown_and_missing_suites_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MissingArtefact, match=r"no MME.tsv") as caught:
        resolve_suites(["MME"], SuiteOptions(data=tmp_path))
    assert "kore data fetch MME" in str(caught.value.hint)
    with pytest.raises(UsageError, match="did you mean POPE"):
        resolve_suites(["POP"], SuiteOptions(data=tmp_path))
    with pytest.raises(UsageError, match="llava-native has no"):
        load_benchmark("MMDU", SuiteOptions(data=write_all(tmp_path), form=PromptForm("llava-native")))


_COLUMNS = ("index", "question", "answer", "A", "B", "image", "category", "choices", "split")
_CELL = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=30)


@pytest.mark.slow
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.fixed_dictionaries(dict.fromkeys(_COLUMNS, _CELL)), max_size=5),
    kind=st.sampled_from([b.name for b in ALL]),
    said=st.lists(_CELL, min_size=1, max_size=3),
)
def test_any_cells_and_predictions_give_a_result_or_one_error(
    tmp_path: Path, rows: list[dict[str, str]], kind: str, said: list[str]
) -> None:
    columns = dict.fromkeys(("index", "question", "image", *find(kind).columns), "")
    filled = [
        {**columns, **{k: v for k, v in row.items() if k in columns}, "image": picture(1)} for row in rows
    ]
    write_tsv(tmp_path / f"{kind}.tsv", filled or [columns])
    try:
        suite = load_benchmark(kind, SuiteOptions(data=tmp_path))
    except DataError as error:
        assert f"{kind}.tsv" in str(error)
        return
    scored = suite.score({row.index: said for row in suite.rows})
    assert scored.headline is None or -1e-9 <= scored.headline <= 100 + 1e-9
    assert len(scored.samples) <= len(suite.rows)


@pytest.mark.slow
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300))
def test_any_bytes_are_read_or_are_one_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "t.tsv"
    path.write_bytes(b"index\tquestion\tanswer\tA\tB\timage\n" + data)
    try:
        read_rows(path)
    except DataError as error:
        assert str(path) in str(error)
