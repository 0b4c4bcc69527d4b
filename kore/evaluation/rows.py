"""VLMEvalKit's TSV files: rows with their cells and pictures, every defect named with file and line.

Standard library only, but for the check that a picture can be opened.
"""

from __future__ import annotations

import ast
import base64
import binascii
import csv
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kore.errors import DataError

# What pandas reads as an empty cell; the original reads its files with pandas, so an option that says
# "None" is no option there.
EMPTY = frozenset(
    (
        "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A",
        "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
    )
)  # fmt: skip
_SHARED_AT_MOST = 64  # a shorter image cell is the index of the row that holds the picture
_INTEGER = re.compile(r"\s*[+-]?\d+\s*")


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        index: the cell ``index``; unique.
        line: its line in the file, 1-based.
        cells: column -> text, empty cells left out; without ``image``.
        pictures: encoded pictures, in order.
        names: the file name of each picture, as the original would write it.
        where: ``file:line``.
    """

    index: str
    line: int
    cells: Mapping[str, str]
    pictures: tuple[bytes, ...] = ()
    names: tuple[str, ...] = ()
    where: str = field(default="", compare=False)

    def get(self, column: str, default: str = "") -> str:
        """A cell's text, or `default` where it is empty."""
        return self.cells.get(column, default)

    @property
    def options(self) -> dict[str, str]:
        """Letter -> text for every option column that is filled."""
        return {c: self.cells[c] for c in _LETTERS if c in self.cells}


_MAY_BE_EMPTY = ("hint", "image", "image_path", "split", "category", "l2-category")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def read_rows(
    path: Path, required: Collection[str] = ("question",), *, pictures: bool = True, pandas_empty: bool = True
) -> list[Row]:
    """Read a benchmark file; rows without a picture are left out, as the original does.

    Args:
        required: columns that must be there, besides ``index`` and a picture column.
        pictures: False skips decoding them: for scoring alone.
        pandas_empty: options, hints and categories that say ``None``, ``NA`` and the like are empty.

    Raises:
        DataError: with file and line: no such column, a row of another length, an index twice, a
            picture that is not base64, a shared picture that is not there.
    """
    raw = list(_cells(path, {"index", *required}, pictures, EMPTY if pandas_empty else frozenset()))
    held = {row["index"]: (line, row["image"]) for line, row in raw if "image" in row}
    rows = []
    for line, cells in raw:
        if pictures and "image" not in cells and "image_path" not in cells:
            continue
        where = f"{path}:{line}"
        found: tuple[bytes, ...] = ()
        names: tuple[str, ...] = ()
        if "image" in cells:
            texts = _pictures_of(cells["image"], held, where)
            found = tuple(_decode(text, where) for text in texts) if pictures else ()
            names = _names(cells, len(texts), where)
        elif "image_path" in cells:
            names = tuple(str(_beside(path, n)) for n in literal_list(cells["image_path"]))
        text = {k: v for k, v in cells.items() if k != "image"}
        rows.append(Row(cells["index"], line, text, found, names, where))
    if not rows:
        raise DataError("holds no row with a picture", where=str(path))
    return rows


def _cells(
    path: Path, required: set[str], pictures: bool, empty: frozenset[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    limit = csv.field_size_limit(sys.maxsize)  # pictures are long cells; the limit is put back below
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.reader(stream, delimiter="\t", strict=True)
            header = next(reader, None)
            if header is None:
                raise DataError("empty file", where=str(path))
            header[0] = header[0].removeprefix("\ufeff")
            _check_header(header, required, pictures, path)
            seen: set[str] = set()
            for cells in reader:
                line = reader.line_num
                if not any(cells):
                    continue
                yield line, _row(header, cells, seen, empty, f"{path}:{line}")
    except OSError as error:
        raise DataError(f"cannot read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8 text", where=str(path)) from error
    except csv.Error as error:
        raise DataError(f"not a TSV file: {error}", where=f"{path}:{reader.line_num}") from error
    finally:
        csv.field_size_limit(limit)


def _check_header(header: list[str], required: set[str], pictures: bool, path: Path) -> None:
    missing = sorted(required - set(header))
    if missing:
        raise DataError(
            f"no column {', '.join(missing)}", where=f"{path}:1", hint="is it tab separated, with a header?"
        )
    if pictures and not {"image", "image_path"} & set(header):
        raise DataError("no column image or image_path", where=f"{path}:1")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"column {', '.join(twice)} twice", where=f"{path}:1")


def _row(
    header: list[str], cells: list[str], seen: set[str], empty: frozenset[str], where: str
) -> dict[str, str]:
    if len(cells) != len(header):
        raise DataError(f"{len(cells)} cells, the header has {len(header)}", where=where)
    row = {}
    for name, cell in zip(header, cells, strict=True):
        if cell == "" or (cell in empty and (name in _LETTERS or name in _MAY_BE_EMPTY)):
            continue
        row[name] = cell
    if "index" not in row:
        raise DataError("index is empty", where=where)
    if row["index"] in seen:
        raise DataError(f"index {row['index']} twice", where=where)
    seen.add(row["index"])
    return row


def _pictures_of(cell: str, held: Mapping[str, tuple[int, str]], where: str) -> list[str]:
    if len(cell) <= _SHARED_AT_MOST and not cell.startswith("["):
        if cell not in held:
            raise DataError(f"image points to row {cell}, which has none", where=where)
        cell = held[cell][1]
        if len(cell) <= _SHARED_AT_MOST:
            raise DataError("image points to a row whose image points elsewhere", where=where)
    return literal_list(cell, where)


def _decode(text: str, where: str) -> bytes:
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"image is not base64: {error}", where=where) from error
    if not data:
        raise DataError("image is empty", where=where)
    return data


def _names(cells: Mapping[str, str], count: int, where: str) -> tuple[str, ...]:
    if "image_path" in cells:
        names = literal_list(cells["image_path"], where)
        if len(names) != count:
            raise DataError(f"{count} pictures, {len(names)} image paths", where=where)
        return tuple(names)
    index = cells["index"]
    return (f"{index}.png",) if count == 1 else tuple(f"{index}_{i}.png" for i in range(count))


def _beside(path: Path, name: str) -> Path:
    """Where a picture outside the file lies: as given, beside the file, or in its images folder."""
    for candidate in (Path(name), path.parent / name, path.parent / "images" / path.stem / name):
        if candidate.is_file():
            return candidate
    return path.parent / name


def literal_list(cell: str, where: str = "") -> list[str]:
    """A cell that is a list literal as its texts, any other cell as the only one.

    Raises:
        DataError: it has a list's brackets but is none, with `where`.
    """
    if not (cell.startswith("[") and cell.endswith("]")):
        return [cell]
    try:
        value = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise DataError(f"not a list: {cell[:40]}", where=where or None) from error
    if not isinstance(value, list):
        raise DataError(f"not a list: {cell[:40]}", where=where or None)
    return [str(part) for part in value]


def is_integer(text: str) -> bool:
    """Whether a cell reads as an integer."""
    return _INTEGER.fullmatch(text) is not None


def by_index(rows: Collection[Row]) -> list[Row]:
    """Rows in the order of their index: as numbers if all are, else as text."""
    if all(is_integer(row.index) for row in rows):
        return sorted(rows, key=lambda row: int(row.index))
    return sorted(rows, key=lambda row: row.index)
