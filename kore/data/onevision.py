"""Samples from a local copy of LLaVA-OneVision-Data, laid out as the hub lays it out.

Four of its subsets stand for general knowledge, as in the released code: geometry, words in pictures,
photographs by blind people, charts. One seeded stream draws from all four in turn; a row that cannot
be used is replaced by another of its subset.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kore.config.schema import ONEVISION_SUBSETS
from kore.data.records import IMAGE_MARK, Sample
from kore.errors import DataError, MissingArtefact
from kore.io.images import open_image

FETCH = "kore data fetch onevision"


class Subset:
    """The rows of one subset's parquet files, in file order.

    Raises:
        MissingArtefact: the subset is not in the copy.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.name = name
        paths = sorted((root / name).glob("*.parquet"))
        if not paths:
            raise MissingArtefact(
                f"no old samples: LLaVA-OneVision-Data has no {name} in {root}",
                hint=f"{FETCH} brings it (elsewhere: KORE_DATA, --set calibrate.onevision=DIR); or name your "
                "own: --samples FILE.jsonl or bench:NAME",
            )
        try:
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise MissingArtefact(
                "reading parquet files needs pyarrow", hint="pip install 'kore-inject[data]'"
            ) from error
        try:
            self._files = [parquet.ParquetFile(path) for path in paths]
        except (OSError, ValueError) as error:
            raise DataError(f"not a parquet file: {error}", where=str(root / name)) from error
        self.rows = sum(f.metadata.num_rows for f in self._files)

    def row(self, number: int) -> dict[str, Any]:
        """Row `number`, counted over all files; reads its row group only."""
        for file in self._files:
            if number >= file.metadata.num_rows:
                number -= file.metadata.num_rows
                continue
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                if number < size:
                    columns = [c for c in ("id", "image", "conversations") if c in file.schema_arrow.names]
                    table = file.read_row_group(group, columns=columns)
                    return dict(table.slice(number, 1).to_pylist()[0])
                number -= size
        raise IndexError(number)


def draw(
    root: Path, count: int, seed: int, pictures: Path, on_skip: Callable[[str], None] | None = None
) -> list[Sample]:
    """Draw `count` samples, as evenly over the four subsets as it goes.

    Args:
        root: the copy; one folder per subset.
        pictures: where the pictures, which lie inside the parquet files, are written.
        on_skip: told about each row that was passed over.
    """
    subsets = [Subset(root, name) for name in ONEVISION_SUBSETS]
    stream = random.Random(seed)
    found: list[Sample] = []
    for position, subset in enumerate(subsets):
        wanted = count // len(subsets) + (position < count % len(subsets))
        picked = stream.sample(range(subset.rows), min(wanted, subset.rows))
        found += _usable(subset, picked, wanted, seed, pictures, on_skip)
    return found


def _usable(
    subset: Subset,
    picked: list[int],
    wanted: int,
    seed: int,
    pictures: Path,
    on_skip: Callable[[str], None] | None,
) -> Iterator[Sample]:
    left = wanted
    for number in _with_spares(picked, subset.rows, f"{seed} {subset.name}"):
        if left == 0:
            return
        try:
            sample = read(subset, number, pictures)
        except DataError as error:
            if on_skip is not None:
                on_skip(f"skipped: {error}")
            continue
        left -= 1
        yield sample


def _with_spares(picked: list[int], rows: int, seed: str) -> Iterator[int]:
    yield from picked
    taken = set(picked)
    spares = [n for n in range(rows) if n not in taken]
    random.Random(seed).shuffle(spares)
    yield from spares


def read(subset: Subset, number: int, pictures: Path) -> Sample:
    """One row as a sample, its picture written to a file.

    Raises:
        DataError: no picture, one that does not open, or no conversation; names subset and row.
    """
    where = f"{subset.name}[{number}]"
    row = subset.row(number)
    data = (row.get("image") or {}).get("bytes")
    turns = row.get("conversations") or []
    if not data:
        raise DataError("no picture", where=where)
    if not any((t.get("value") or "").replace(IMAGE_MARK, "").strip() for t in turns[:1]):
        raise DataError("no question", where=where)
    folder = pictures / subset.name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number}{Path((row['image'].get('path') or '') or '.png').suffix or '.png'}"
    path.write_bytes(data)
    open_image(path, where)
    clean = [{"from": t["from"], "value": (t["value"] or "").replace(IMAGE_MARK, "").strip()} for t in turns]
    clean[0]["value"] = f"{IMAGE_MARK}\n{clean[0]['value']}"
    name = f"{subset.name}/{row.get('id', number)}"
    return Sample.from_json({"id": name, "image": str(path), "conversations": clean}, where)
