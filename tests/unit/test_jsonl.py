"""JSON Lines: what is written is read back; what cannot be read says which line it is."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kore.errors import DataError
from kore.io.jsonl import dump_line, mend_log, read_jsonl, read_log, write_jsonl

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=8,
)
objects = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), values, max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.lists(objects, max_size=6))
def test_what_is_written_is_read_back_with_line_numbers(
    tmp_path_factory: pytest.TempPathFactory, lines: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    assert write_jsonl(path, lines) == len(lines)
    found = list(read_jsonl(path))
    assert [value for _, value in found] == lines
    assert [where for where, _ in found] == [f"{path}:{i}" for i in range(1, len(lines) + 1)]


@settings(max_examples=60, deadline=None)
@given(objects)
def test_a_record_is_one_line_whatever_its_text_holds(value: dict[str, Any]) -> None:
    line = dump_line(value)
    assert line.endswith("\n") and line.count("\n") == 1 and "\r" not in line
    assert json.loads(line) == value


@settings(max_examples=60, deadline=None)
@given(st.lists(objects, min_size=1, max_size=4), st.data())
def test_a_file_cut_anywhere_yields_its_whole_lines_and_then_one_error_or_none(
    tmp_path_factory: pytest.TempPathFactory, lines: list[dict[str, Any]], data: st.DataObject
) -> None:
    whole = "".join(map(dump_line, lines)).encode()
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    path.write_bytes(cut)
    errors: list[DataError] = []
    found = [value for _, value in read_jsonl(path, on_error=errors.append)]
    complete = cut.count(b"\n")
    assert found[:complete] == lines[:complete]
    assert len(found) + len(errors) <= complete + 1
    assert all("cut off" in error.message for error in errors)
    assert read_log(path) == lines[:complete]
    mend_log(path)
    assert path.read_bytes() == whole[: len(path.read_bytes())]
    assert path.read_bytes() == b"" or path.read_bytes().endswith(b"\n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{'a': 1}", "not JSON"),
        (b'{"a": 1} {"b": 2}', "not JSON"),
        (b"[1, 2]", "expected a JSON object, found list"),
        (b'"text"', "expected a JSON object, found str"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": ' + b"9" * 5000 + b"}", "thousands of digits"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": "\\udc00"}', "surrogate"),
    ],
)
def test_a_bad_line_is_an_error_with_its_number(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"ok": 1}\n\n' + line + b'\n{"ok": 2}\n')
    with pytest.raises(DataError, match=message) as caught:
        list(read_jsonl(path))
    assert caught.value.where == f"{path}:3"
    errors: list[DataError] = []
    assert [v for _, v in read_jsonl(path, on_error=errors.append)] == [{"ok": 1}, {"ok": 2}]
    assert [e.where for e in errors] == [f"{path}:3"]


@pytest.mark.parametrize("tail", [b'{"a": "x', b'{"a": "\xc3', b'{"a": 12', b"{"])
def test_a_torn_last_line_is_told_from_a_wrong_one(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"ok": 1}\n' + tail)
    with pytest.raises(DataError, match="the last line is cut off") as caught:
        list(read_jsonl(path))
    assert caught.value.where == f"{path}:2"
    assert len(caught.value.lines()) == 2


def test_a_whole_last_line_needs_no_newline_and_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}')
    assert [v for _, v in read_jsonl(path)] == [{"a": 1}, {"a": 2}]


def test_numbers_of_any_usual_size_keep_their_value(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"n": 2**200, "f": 0.1}])
    assert [v for _, v in read_jsonl(tmp_path / "a.jsonl")] == [{"n": 2**200, "f": 0.1}]


def test_dash_is_standard_input_and_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(b'{"a": 1}\nx\n'))
    monkeypatch.setattr(sys, "stdin", stream)
    errors: list[DataError] = []
    assert [v for _, v in read_jsonl("-", on_error=errors.append)] == [{"a": 1}]
    assert errors[0].where == "stdin:2"


def test_a_missing_file_and_a_folder_are_data_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(DataError, match="cannot read"):
            list(read_jsonl(path))


def test_a_bad_line_inside_a_log_is_an_error_and_a_missing_log_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert read_log(path) == []
    path.write_text('{"a": 1}\nbroken\n{"a": 2}\n{"a"')
    with pytest.raises(DataError) as caught:
        read_log(path)
    assert caught.value.where == f"{path}:2"


def test_a_failing_source_leaves_no_file(tmp_path: Path) -> None:
    def lines() -> Any:
        yield {"a": 1}
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_jsonl(tmp_path / "a.jsonl", lines())
    assert list(tmp_path.iterdir()) == []


def test_a_broken_line_tells_the_column_of_the_fault(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"id": "9", "kind": \n{}\n')
    with pytest.raises(DataError, match=r"column 21\)"):
        list(read_jsonl(tmp_path / "x.jsonl"))
