"""Parts joined are the whole; parts that do not fit are refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from kore.augment import grow
from kore.augment.sharding import join
from kore.config.schema import AugmentSection
from kore.data.records import KnowledgeItem
from kore.errors import DataError, MissingArtefact, UsageError
from tests.augment_loopback import gadgets
from tests.held import held

FILES = ("tree.jsonl", "samples.jsonl", "eval.jsonl", "rejected.jsonl", "report.json")
SECTION = AugmentSection(teacher="offline", negatives=0.5, forest=True, copies=2)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KORE_CACHE", str(tmp_path / "kept"))


@pytest.fixture
def items(picture: Path, tmp_path: Path) -> list[KnowledgeItem]:
    """Eight items; the picture of one is missing."""
    found = gadgets(8, picture)
    found[3] = found[3].model_copy(update={"image": str(tmp_path / "nowhere.png")})
    return found


def parts(items: list[KnowledgeItem], tmp_path: Path, count: int = 3) -> list[Path]:
    folders = [tmp_path / f"part{n}" for n in range(1, count + 1)]
    for number, folder in enumerate(folders, 1):
        grow(items, SECTION, folder, shard=(number, count), keep_going=True)
    return folders


def test_joined_parts_equal_one_run_file_for_file(items: list[KnowledgeItem], tmp_path: Path) -> None:
    whole = grow(items, SECTION, tmp_path / "whole", keep_going=True)
    one, two, three = parts(items, tmp_path)
    joined = join([three, one, two], tmp_path / "joined")
    for name in FILES:
        assert (whole.folder / name).read_bytes() == (joined.folder / name).read_bytes(), name
    names = [
        sorted(p.name for p in (folder / "images").iterdir()) for folder in (whole.folder, joined.folder)
    ]
    assert names[0] == names[1]
    assert join([one, two, three], tmp_path / "joined").state == "done"


def test_a_missing_a_double_and_a_foreign_part_are_refused(
    items: list[KnowledgeItem], tmp_path: Path
) -> None:
    one, two, three = parts(items, tmp_path)
    with pytest.raises(MissingArtefact, match="part 2/3 is missing"):
        join([one, three], tmp_path / "joined")
    with pytest.raises(UsageError, match="is or holds what is read"):
        join([one, two, three], two, restart=True)
    assert (two / "manifest.json").is_file()
    with pytest.raises(UsageError, match="given twice"):
        join([one, two, two], tmp_path / "joined")
    grow(items, SECTION.model_copy(update={"copies": 3}), tmp_path / "other", shard=(3, 3), keep_going=True)
    with pytest.raises(UsageError, match="copies: 2 -> 3"):
        join([one, two, tmp_path / "other"], tmp_path / "joined")
    grow(items, SECTION, tmp_path / "whole", keep_going=True)
    with pytest.raises(UsageError, match="made without --shard"):
        join([one, two, tmp_path / "whole"], tmp_path / "joined")


def test_parts_are_not_joined_where_another_process_works(items: list[KnowledgeItem], tmp_path: Path) -> None:
    made = parts(items, tmp_path)
    with held(tmp_path / "joined"), pytest.raises(DataError, match="in use by process"):
        join(made, tmp_path / "joined")
