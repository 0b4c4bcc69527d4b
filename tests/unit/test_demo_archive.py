"""The demo's data is unpacked once, completely, and the archive is reproducible."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from kore.demo import archive
from kore.errors import DataError


def test_unpacking_gives_every_file_and_leaves_no_scratch_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = archive.demo_data.__wrapped__()
    with zipfile.ZipFile(archive.ARCHIVE) as packed:
        names = {name for name in packed.namelist() if not name.endswith("/")}
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == names
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_a_cache_that_cannot_be_written_is_replaced_by_a_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert (archive.demo_data.__wrapped__() / "items.jsonl").is_file()


def test_packing_the_same_files_gives_the_same_bytes(tmp_path: Path) -> None:
    archive.pack(archive.demo_data(), tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == archive.ARCHIVE.read_bytes()


def test_a_damaged_archive_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data.zip").write_bytes(b"not a zip")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(archive, "ARCHIVE", tmp_path / "data.zip")
    with pytest.raises(DataError, match="cannot unpack"):
        archive.demo_data.__wrapped__()
