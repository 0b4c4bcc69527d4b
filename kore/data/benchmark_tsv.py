"""Rows of VLMEvalKit's TSV files, with their cells and images. Every defect is named with file and line."""

from __future__ import annotations

import ast
import base64
import binascii
import csv
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kore.data.task import TaskImage
from kore.errors import DataError

# What pandas reads as an empty cell, and VLMEvalKit with it: an option "None" is no option.
EMPTY = frozenset(
    {
        *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"),
        *("N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    }
)
_POINTER_LENGTH = 64  # an image cell of at most this length is the index of the row that stores the image
_INTEGER = re.compile(r"\s*[+-]?\d+\s*")


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        index: the cell ``index``; unique.
        line: its line in the file, 1-based.
        cells: column -> text, without empty cells and without ``image``.
        images: encoded images, in order.
        image_names: the file name of each image, as VLMEvalKit would write it.
        image_row: index of the row that stores the images, often this one; empty if there is none.
        where: ``file:line``.
    """

    index: str
    line: int
    cells: Mapping[str, str]
    images: tuple[bytes, ...] = ()
    image_names: tuple[str, ...] = ()
    image_row: str = ""
    where: str = field(default="", compare=False)

    def get(self, column: str, default: str = "") -> str:
        """A cell's text, or `default` where it is empty."""
        return self.cells.get(column, default)

    @property
    def options(self) -> dict[str, str]:
        """Letter -> text for every option column that is filled."""
        return {c: self.cells[c] for c in _LETTERS if c in self.cells}

    @property
    def accepted_answers(self) -> list[str]:
        """The texts of a list literal in the cell ``answer``, or the cell itself."""
        cell = self.get("answer")
        try:
            value = ast.literal_eval(cell.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return [cell]
        return [str(part) for part in value] if isinstance(value, list) else [cell]

    def task_images(self) -> tuple[TaskImage, ...]:
        """The images, for a prompt."""
        if self.images:
            pairs = zip(self.image_names, self.images, strict=True)
            return tuple(TaskImage(name, data, self.where) for name, data in pairs)
        return tuple(TaskImage(name, where=self.where) for name in self.image_names)


_MAY_BE_EMPTY = ("hint", "image", "image_path", "split", "category", "l2-category")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def read_rows(
    path: Path,
    required: Collection[str] = ("question",),
    *,
    images: bool = True,
    pandas_empty: bool = True,
    only: Collection[str] | None = None,
    on_error: Callable[[DataError], None] | None = None,
) -> list[Row]:
    """Read a benchmark file; rows without an image are left out, as VLMEvalKit does.

    Args:
        required: columns that must be there, besides ``index`` and an image column.
        images: False reads no image and leaves no row out; `Row.image_row` says which row stores it.
        pandas_empty: options, hints and categories such as ``None`` and ``NA`` are empty.
        only: indices of the rows to read; include the rows that store their images.
        on_error: called with the error of each row whose image is broken, which is then left out.

    Raises:
        DataError: with file and line: a missing column, a row of another length, an index twice, an image
            that is not base64, a shared image that is not there.
    """
    cells = _cells(path, {"index", *required}, EMPTY if pandas_empty else frozenset())
    if not images:
        rows = [_row_without_images(line, row, f"{path}:{line}") for line, row in cells]
    else:
        raw = [(line, row) for line, row in cells if only is None or row["index"] in only]
        stored = {row["index"]: row["image"] for _, row in raw if "image" in row}
        rows = []
        for line, row in raw:
            if "image" not in row and "image_path" not in row:
                continue
            try:
                rows.append(_row_with_images(path, line, row, stored))
            except DataError as error:
                if on_error is None:
                    raise
                on_error(error)
    if not rows and only is None:
        raise DataError("no row with an image", where=str(path))
    return rows


def _row_without_images(line: int, cells: dict[str, str], where: str) -> Row:
    image = cells.pop("image", "")
    image_row = image if image and _is_pointer(image) else cells["index"]
    return Row(
        cells["index"],
        line,
        cells,
        image_row=image_row if image or "image_path" in cells else "",
        where=where,
    )


def _row_with_images(path: Path, line: int, cells: dict[str, str], stored: Mapping[str, str]) -> Row:
    where = f"{path}:{line}"
    text = {k: v for k, v in cells.items() if k != "image"}
    if "image" not in cells:
        names = tuple(str(_beside(path, name)) for name in literal_list(cells["image_path"], where))
        return Row(cells["index"], line, text, (), names, cells["index"], where)
    image_row = cells["image"] if _is_pointer(cells["image"]) else cells["index"]
    encoded = _encoded_images(image_row, stored, where)
    data = tuple(_decode(text, where) for text in encoded)
    return Row(cells["index"], line, text, data, _names(cells, len(encoded), where), image_row, where)


def _cells(path: Path, required: set[str], empty: frozenset[str]) -> Iterator[tuple[int, dict[str, str]]]:
    limit = csv.field_size_limit(sys.maxsize)  # images are long cells
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.reader(stream, delimiter="\t", strict=True)
            header = next(reader, None)
            if header is None:
                raise DataError("empty file", where=str(path))
            header[0] = header[0].removeprefix("\ufeff")
            _check_header(header, required, path)
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


def _check_header(header: list[str], required: set[str], path: Path) -> None:
    missing = sorted(required - set(header))
    if missing:
        raise DataError(
            f"no column {', '.join(missing)}", where=f"{path}:1", hint="is it tab separated, with a header?"
        )
    if not {"image", "image_path"} & set(header):
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


def _is_pointer(cell: str) -> bool:
    return len(cell) <= _POINTER_LENGTH and not cell.startswith("[")


def _encoded_images(image_row: str, stored: Mapping[str, str], where: str) -> list[str]:
    if image_row not in stored:
        raise DataError(f"image points to row {image_row}, which has none", where=where)
    cell = stored[image_row]
    if _is_pointer(cell):
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
            raise DataError(f"{count} images, {len(names)} image paths", where=where)
        return tuple(names)
    index = cells["index"]
    return (f"{index}.png",) if count == 1 else tuple(f"{index}_{i}.png" for i in range(count))


def _beside(path: Path, name: str) -> Path:
    """The path of an image outside the file: as given, beside the file, or in its images folder."""
    for candidate in (Path(name), path.parent / name, path.parent / "images" / path.stem / name):
        if candidate.is_file():
            return candidate
    return path.parent / name


def literal_list(cell: str, where: str = "") -> list[str]:
    """A cell that is a list literal as its texts, any other cell as the only one.

    Raises:
        DataError: a cell in brackets that is not a list, with `where`.
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
