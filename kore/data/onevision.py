"""Samples from a local copy of LLaVA-OneVision-Data, laid out as the hub lays it out.

Four of its subsets stand for general knowledge, as in the released code: geometry, words in pictures,
photographs by blind people, charts. One seeded stream draws from all four in turn; a row that cannot
be used is replaced by another of its subset.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from kore.config.schema import ONEVISION_SUBSETS
from kore.data.records import IMAGE_MARK, Sample
from kore.errors import DataError, MissingArtefact
from kore.io.images import open_image

FETCH = "kore data fetch onevision"
_BATCH = 64  # rows that are decoded at a time


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
        self._groups: list[tuple[Path, int, range]] = []  # file, row group in it, its rows over all files
        self.rows = 0
        for path in paths:
            try:
                metadata = parquet.read_metadata(path)
            except (OSError, ValueError) as error:
                raise DataError(f"not a parquet file: {error}", where=str(root / name)) from error
            for group in range(metadata.num_row_groups):
                size = metadata.row_group(group).num_rows
                self._groups.append((path, group, range(self.rows, self.rows + size)))
                self.rows += size

    def read_rows(self, numbers: Collection[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Rows, numbered over all files, in file order; each row group that holds one is read once.

        Raises:
            DataError: a damaged file.
        """
        for path, group, rows in self._groups:
            if wanted := sorted(n for n in set(numbers) if n in rows):
                for offset, row in _rows_of(path, group, [n - rows.start for n in wanted]):
                    yield rows.start + offset, row


def _rows_of(path: Path, group: int, offsets: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Some rows of one row group, in order; no more than a few rows are in memory beside them."""
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            columns = [c for c in ("id", "image", "conversations") if c in file.schema_arrow.names]
            start, left = 0, list(offsets)
            for batch in file.iter_batches(_BATCH, row_groups=[group], columns=columns):
                here = [n for n in left if n < start + batch.num_rows]
                yield from zip(here, batch.take([n - start for n in here]).to_pylist(), strict=True)
                start, left = start + batch.num_rows, left[len(here) :]
                if not left:
                    return
    except (OSError, ValueError) as error:
        raise DataError(f"damaged parquet file: {error}", where=str(path)) from error


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
    order = _with_spares(picked, subset.rows, f"{seed} {subset.name}")
    while numbers := list(islice(order, left)):
        results = {n: _read(subset.name, n, row, pictures) for n, row in subset.read_rows(numbers)}
        for result in (results[n] for n in numbers):
            if isinstance(result, Sample):
                left -= 1
                yield result
            elif on_skip is not None:
                on_skip(f"skipped: {result}")


def _with_spares(picked: list[int], rows: int, seed: str) -> Iterator[int]:
    yield from picked
    taken = set(picked)
    spares = [n for n in range(rows) if n not in taken]
    random.Random(seed).shuffle(spares)
    yield from spares


def _read(subset: str, number: int, row: dict[str, Any], pictures: Path) -> Sample | DataError:
    try:
        return read(subset, number, row, pictures)
    except DataError as error:
        return error


def read(subset: str, number: int, row: dict[str, Any], pictures: Path) -> Sample:
    """One row as a sample, its picture written to a file.

    Raises:
        DataError: no picture, one that does not open, or no conversation; names subset and row.
    """

    where = f"{subset}[{number}]"
    data = (row.get("image") or {}).get("bytes")
    turns = row.get("conversations") or []
    if not data:
        raise DataError("no picture", where=where)
    if not any((t.get("value") or "").replace(IMAGE_MARK, "").strip() for t in turns[:1]):
        raise DataError("no question", where=where)
    folder = pictures / subset
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number}{Path((row['image'].get('path') or '') or '.png').suffix or '.png'}"
    path.write_bytes(data)
    open_image(path, where)
    clean = [{"from": t["from"], "value": (t["value"] or "").replace(IMAGE_MARK, "").strip()} for t in turns]
    clean[0]["value"] = f"{IMAGE_MARK}\n{clean[0]['value']}"
    name = f"{subset}/{row.get('id', number)}"
    return Sample.from_json({"id": name, "image": str(path), "conversations": clean}, where)
