"""Calibration samples: seeded draws from every source, unusable ones replaced."""

from __future__ import annotations

import base64
import csv
import sys
from pathlib import Path
from typing import Any

import pytest

from kore.config.schema import ONEVISION_SUBSETS
from kore.data.benchmark_prompts import PromptForm
from kore.data.benchmarks import NAMES, OWN_KINDS
from kore.data.onevision import Subset, draw
from kore.errors import DataError, MissingArtefact, UsageError
from kore.evaluation.benchmark_suite import load_benchmark, load_own
from kore.evaluation.suite_options import SuiteOptions
from kore.io.jsonl import write_jsonl
from kore.nullspace import bench
from kore.nullspace.sources import Source, collect, collect_others, parse_source
from tests.parquet import png, write_onevision
from tests.tsv import picture, write_all, write_tsv


@pytest.fixture
def onevision(tmp_path: Path) -> Path:
    """A copy in which every third row is unusable."""
    return write_onevision(tmp_path / "data" / "onevision")


def test_sources_are_read_with_their_counts() -> None:
    assert parse_source("demo", 5) == Source("demo", "demo", 5)
    assert parse_source("onevision:256", 5) == Source("onevision", "onevision", 256)
    assert parse_source("bench:MME:64", 5) == Source("bench", "MME", 64)
    assert parse_source("a/b.jsonl", 5) == Source("file", "a/b.jsonl", 5)
    for bad in ("nonsense", "bench:", "demo:0", "onevision:²"):
        with pytest.raises(UsageError):
            parse_source(bad, 5)


def test_onevision_draws_evenly_and_replaces_what_cannot_be_used(
    onevision: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORE_DATA", str(onevision.parent))
    skipped: list[str] = []
    source = [parse_source("onevision:30", 1)]
    drawn = collect(source, 233, tmp_path / "w", on_skip=skipped.append)
    counts = [sum(s.id.startswith(f"{name}/") for s in drawn) for name in ONEVISION_SUBSETS]
    assert counts == [8, 8, 7, 7]
    assert len({s.id for s in drawn}) == 30
    assert any("broken picture" in s for s in skipped) and any("no picture" in s for s in skipped)
    again = collect(source, 233, tmp_path / "v")
    assert [s.id for s in again] == [s.id for s in drawn]
    assert [s.id for s in collect(source, 7, tmp_path / "u")] != [s.id for s in drawn]


def test_onevision_draws_the_same_rows_whatever_the_order_of_reading(onevision: Path, tmp_path: Path) -> None:
    drawn = draw(onevision, 10, 7, tmp_path / "w")
    numbers = [[s.id.rpartition("/")[2] for s in drawn if s.id.startswith(n)] for n in ONEVISION_SUBSETS]
    assert numbers == [["5", "2", "1"], ["10", "1", "4"], ["8", "1"], ["5", "10"]]
    assert all(s.conversations[1].value == f"Answer {s.id.rpartition('/')[2]}" for s in drawn)


def test_onevision_reads_a_row_group_once_and_leaves_no_file_open(
    onevision: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    opened, read = [], []
    init, iterate = parquet.ParquetFile.__init__, parquet.ParquetFile.iter_batches

    def opening(self: Any, *args: Any, **options: Any) -> None:
        opened.append(self)
        init(self, *args, **options)

    def reading(self: Any, *args: Any, row_groups: list[int], **options: Any) -> Any:
        read.append((str(args), *row_groups))
        return iterate(self, *args, row_groups=row_groups, **options)

    monkeypatch.setattr(parquet.ParquetFile, "__init__", opening)
    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", reading)
    subset = Subset(onevision, ONEVISION_SUBSETS[0])
    rows = dict(subset.read_rows([11, 0, 5, 1, 4]))
    assert [rows[n]["id"] for n in (0, 1, 4, 5, 11)] == ["0", "1", "4", "5", "11"]
    assert len(read) == 3  # rows 0 and 1, rows 4 and 5, row 11
    assert all(file.closed for file in opened)


def test_onevision_that_is_not_here_names_the_command_and_the_setting(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(MissingArtefact) as caught:
        collect([parse_source("onevision", 4)], 0, tmp_path, onevision=str(tmp_path / "none"))
    assert "kore data fetch onevision" in str(caught.value.hint)
    assert "calibrate.onevision" in str(caught.value.hint)


def test_onevision_without_pyarrow_is_something_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ONEVISION_SUBSETS[0]).mkdir()
    (tmp_path / ONEVISION_SUBSETS[0] / "train.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingArtefact, match="needs pyarrow") as caught:
        collect([parse_source("onevision:4", 4)], 0, tmp_path / "work", onevision=str(tmp_path))
    assert "kore-inject[data]" in (caught.value.hint or "")


def test_a_benchmark_gives_its_questions_with_shared_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORE_DATA", str(tmp_path))
    image = base64.b64encode(png() + b" " * 80).decode()
    with (tmp_path / "MME.tsv").open("w", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t")
        writer.writerow(["index", "image", "question", "answer"])
        writer.writerow(["0", image, "Is it red?", "Yes"])
        writer.writerow(["1", "0", "Is it blue?", "No"])
        writer.writerow(["2", image, "Is it green?", "No"])
        writer.writerow(["3", "9", "Dangling?", "No"])
    drawn = {s.id: s for s in collect([parse_source("bench:MME:3", 1)], 1, tmp_path / "w")}
    assert set(drawn) == {"MME/0", "MME/1", "MME/2"}
    assert drawn["MME/1"].images == drawn["MME/0"].images
    (tmp_path / "MME.tsv").rename(tmp_path / "OCRVQA_TESTCORE.tsv")
    assert len(collect([parse_source("bench:OCRVQA:2", 1)], 1, tmp_path / "w")) == 2
    with pytest.raises(MissingArtefact, match=r"no POPE\.tsv") as caught:
        collect([parse_source("bench:POPE", 1)], 0, tmp_path)
    assert "kore data fetch POPE" in str(caught.value.hint)


def test_a_benchmark_is_found_under_its_published_name_and_read_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORE_DATA", str(tmp_path))
    image = base64.b64encode(png() + b" " * 80).decode()
    with (tmp_path / "Mia-Bench.tsv").open("w", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t")
        writer.writerow(["index", "image", "question"])
        for n in range(40):
            writer.writerow([str(n), image if n % 10 == 0 else "none", f"Is it {n}?"])
    read, rows = [], bench.read_rows
    monkeypatch.setattr(bench, "read_rows", lambda path, **more: read.append(path) or rows(path, **more))
    drawn = collect([parse_source("bench:MIA-Bench:4", 1)], 1, tmp_path / "w")
    assert sorted(s.id for s in drawn) == [f"Mia-Bench/{n}" for n in (0, 10, 20, 30)]
    assert len(read) <= 3


@pytest.mark.parametrize("form", [PromptForm(), PromptForm(style="llava"), PromptForm("llava-native")])
@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_sample_has_the_prompt_that_evaluation_uses(
    tmp_path: Path, name: str, form: PromptForm, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_all(tmp_path / "data")
    monkeypatch.setenv("KORE_DATA", str(data))
    try:
        suite = load_benchmark(name, SuiteOptions(data=data, form=form))
    except UsageError:
        pytest.skip("the protocol does not cover it")
    drawn = {
        s.id.rpartition("/")[2]: s for s in collect([parse_source(f"bench:{name}:99", 1, form)], 1, tmp_path)
    }
    tasks = list(suite.tasks())
    assert tasks and {t.id for t in tasks} == drawn.keys()
    for task in tasks:
        sample = drawn[task.id]
        human = [m.value for m in sample.conversations if m.from_ == "human"]
        assert human == [turn.text for turn in task.turns][: len(human)]
        shown = [image.data for turn in task.turns[: len(human)] for image in turn.images]
        assert [Path(path).read_bytes() for path in sample.images] == shown


@pytest.mark.parametrize("kind", OWN_KINDS)
@pytest.mark.parametrize("named", [True, False])
def test_a_sample_of_an_own_tsv_file_has_the_prompt_that_evaluation_uses(
    tmp_path: Path, kind: str, named: bool
) -> None:
    options = {"A": "cat", "B": "None"} if kind == "mcq" else {}
    answer = {"mcq": "A", "yorn": "Yes", "vqa": "red"}[kind]
    rows = [{"index": "1", "question": "What?", "answer": answer, **options, "image": picture(1)}]
    path = write_tsv(tmp_path / "own.tsv", rows)
    (sample,) = collect([parse_source(f"bench:{path}{f':{kind}' if named else ''}:1", 9)], 1, tmp_path)
    (task,) = load_own(path, kind, SuiteOptions()).tasks()
    assert sample.conversations[0].value == task.turns[0].text
    assert sample.conversations[1].value == answer


def test_what_is_held_out_of_a_benchmark_is_none_of_what_was_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORE_DATA", str(tmp_path))
    with (tmp_path / "MME.tsv").open("w", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t")
        writer.writerow(["index", "image", "question", "answer"])
        for n in range(6):
            image = base64.b64encode(png(n) + b" " * 80).decode()
            writer.writerow([str(n), image, f"Is it {n}?", "Yes"])

    source, notes = [Source("bench", "MME", 2)], []
    taken = collect(source, 1, tmp_path / "w")
    others = collect_others(source, 1, tmp_path / "v", taken, 5, on_skip=notes.append)
    assert sorted(x.id for x in [*taken, *others]) == [f"MME/{n}" for n in range(6)]
    assert notes == ["bench MME: 4 samples are left to hold out, 5 were asked for"]
    source = [Source("bench", "MME", 6)]
    assert collect_others(source, 1, tmp_path / "v", collect(source, 1, tmp_path / "w"), 5) == []


def test_a_picture_missing_in_a_file_of_samples_is_an_error_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(png())
    rows = [
        {
            "id": str(n),
            "image": "good.png",
            "messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": f"Q{n}"}]}],
        }
        for n in range(8)
    ]
    write_jsonl(tmp_path / "a.jsonl", rows)
    write_jsonl(tmp_path / "b.jsonl", [rows[0], {**rows[1], "image": "none.png"}])
    notes: list[str] = []
    drawn = collect([parse_source(str(tmp_path / "a.jsonl:3"), 1)], 0, tmp_path, on_skip=notes.append)
    assert len(drawn) == 3
    with pytest.raises(DataError, match="no such picture") as caught:
        collect([parse_source(str(tmp_path / "b.jsonl"), 2)], 0, tmp_path)
    assert "b.jsonl:2" in str(caught.value.where)
    few = collect([parse_source(str(tmp_path / "a.jsonl:9"), 1)], 0, tmp_path, on_skip=notes.append)
    assert len(few) == 8 and "8 samples, 9 were asked for" in notes[-1]
