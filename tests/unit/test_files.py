"""Files are whole or not there, JSON is what any parser reads, hashes depend on content alone."""

from __future__ import annotations

import json
import math
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kore.errors import DataError
from kore.io.files import (
    atomic_write,
    hash_folder,
    hash_json,
    is_leftover,
    json_text,
    parse_json,
    read_json,
    write_json,
)


def test_a_failing_body_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as stream:
        stream.write("new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_kill_in_the_middle_of_a_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    code = (
        "import os, sys, signal; from pathlib import Path; from kore.io.files import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as s:\n"
        "    s.write('x' * 100000); s.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -9
    assert path.read_text() == "old"
    left = [p for p in tmp_path.iterdir() if p != path]
    assert left and all(is_leftover(p) for p in left)


def test_leftovers_of_a_kill_do_not_change_a_folders_hash(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    before = hash_folder(tmp_path)
    (tmp_path / ".a.txt.1.abc.tmp").write_text("half")
    assert hash_folder(tmp_path) == before
    (tmp_path / "b.txt").write_text("")
    assert hash_folder(tmp_path) != before


def test_written_files_have_the_modes_that_the_umask_leaves(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "a") as stream:
            stream.write("x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_writing_to_a_device_does_not_replace_it() -> None:
    with atomic_write(Path("/dev/null")) as stream:
        stream.write("x")
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("place", ["file/below", "/proc/kore/x", "folder"])
def test_a_place_that_cannot_be_written_is_a_data_error_with_its_name(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    path = Path(place) if place.startswith("/") else tmp_path / place
    with pytest.raises(DataError) as caught, atomic_write(path):
        pass
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 3


def test_numbers_that_are_not_finite_are_written_as_null_at_any_depth() -> None:
    value = {"a": math.nan, "b": [math.inf, 1.5, {"c": (-math.inf, np.float32("nan"))}], "d": np.int64(3)}
    assert json.loads(json_text(value)) == {"a": None, "b": [None, 1.5, {"c": [None, None]}], "d": 3}


def test_scalars_of_numpy_and_paths_become_plain_json_and_arrays_are_refused() -> None:
    assert json_text({"x": np.float64(0.5), "p": Path("a/b")}) == '{"x": 0.5, "p": "a/b"}'
    with pytest.raises(TypeError):
        json_text({"x": np.zeros(2)})
    with pytest.raises(TypeError):
        json_text({"x": object()})


@pytest.mark.parametrize(
    "text", ["NaN", "[Infinity]", "1" * 5000, "[" * 100_000, '"\\ud800"', "{'a': 1}", "", "{} {}"]
)
def test_what_other_parsers_refuse_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


def test_escaped_pairs_of_surrogates_are_text() -> None:
    assert parse_json('"\\ud83c\\udde9"') == "\U0001f1e9"


@pytest.mark.parametrize(
    ("data", "message", "line"),
    [
        (b'{"a": 1,\n}', "not JSON", ":2"),
        (b"\xff\xfe", "not UTF-8", ""),
        (b'{"a": NaN}', "NaN is not JSON", ""),
    ],
)
def test_a_broken_json_file_says_what_and_where(tmp_path: Path, data: bytes, message: str, line: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        read_json(path)
    assert caught.value.where == f"{path}{line}"


def test_a_byte_order_mark_is_not_part_of_the_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": "\xc3\xbc"}')
    assert read_json(tmp_path / "a.json") == {"a": "ü"}


def test_hashes_do_not_depend_on_the_order_of_keys() -> None:
    assert hash_json({"a": 1, "b": [1, 2]}) == hash_json({"b": [1, 2], "a": 1})
    assert hash_json({"a": 1}) != hash_json({"a": 1.5})


def test_json_files_are_read_as_they_were_written(tmp_path: Path) -> None:
    value = {"ü": ["\u2028", None, True, 1e-12, 10**30]}
    write_json(tmp_path / "deep" / "a.json", value)
    assert read_json(tmp_path / "deep" / "a.json") == value
