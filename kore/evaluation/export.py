"""Predictions in VLMEvalKit's file form, so that anyone can score them with the original.

Every column of the benchmark's file except the picture, plus ``prediction``; as TSV (safe) and xlsx.
Both are read back and compared after writing.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from kore.errors import DataError
from kore.evaluation.benchmark_suite import BenchSuite
from kore.io.files import atomic_write

if TYPE_CHECKING:
    from kore.evaluation.runner import Result
    from kore.evaluation.types import Suite

_CELL_AT_MOST = 32_767  # characters an xlsx cell holds
_NOT_IN_XLSX = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


@dataclass
class Exported:
    """What was written, and what a spreadsheet could not hold."""

    files: list[Path] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def export_results(suites: Sequence[Suite], results: Mapping[str, Result], folder: Path) -> Exported:
    """Write ``LABEL_DATASET.tsv`` and ``.xlsx`` for every benchmark and model."""
    exported = Exported()
    spreadsheets = find_spec("openpyxl") is not None
    if not spreadsheets:
        exported.warnings.append("no xlsx written: it needs openpyxl (pip install 'kore-inject[data]')")
    for label, result in results.items():
        for suite in suites:
            if not isinstance(suite, BenchSuite) or suite.name not in result.scored:
                continue
            said = result.answers.get(suite.name, {})
            table = _table(suite, said)
            stem = folder / f"{label}_{suite.name}"
            exported.files.append(_write_tsv(table, stem.parent / f"{stem.name}.tsv"))
            if spreadsheets:
                exported.files.append(
                    _write_xlsx(table, stem.parent / f"{stem.name}.xlsx", exported.warnings)
                )
    return exported


def _table(suite: BenchSuite, said: Mapping[str, Sequence[str]]) -> list[list[str]]:
    columns = list(dict.fromkeys(name for row in suite.rows for name in row.cells))
    table = [[*columns, "prediction"]]
    for row in suite.rows:
        turns = said.get(row.index, ())
        # a dialogue's prediction is a list literal of its turns, as the original stores it
        prediction = repr(list(turns)) if suite.kind == "mmdu" else (turns[0] if turns else "")
        table.append([*(row.get(name) for name in columns), prediction])
    return table


def _write_tsv(table: list[list[str]], path: Path) -> Path:
    with atomic_write(path) as stream:
        csv.writer(stream, delimiter="\t", lineterminator="\n").writerows(table)
    limit = csv.field_size_limit(sys.maxsize)
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            back = list(csv.reader(stream, delimiter="\t"))
    finally:
        csv.field_size_limit(limit)
    if back != table:
        raise DataError("the TSV does not read back as it was written", where=str(path))
    return path


def _write_xlsx(table: list[list[str]], path: Path, warnings: list[str]) -> Path:
    from openpyxl import Workbook, load_workbook

    book = Workbook(write_only=True)
    sheet = book.create_sheet()
    fitted = [[_fit(cell) for cell in row] for row in table]
    for row in fitted:
        sheet.append([_text(sheet, cell) for cell in row])
    with atomic_write(path, "wb") as stream:
        book.save(stream)
    lost = sum(a != b for old, new in zip(table, fitted, strict=True) for a, b in zip(old, new, strict=True))
    if lost:
        warnings.append(f"{path.name}: {lost} cells do not fit a spreadsheet and were cut; the TSV is whole")
    with closing(load_workbook(path, read_only=True)) as stored:
        rows = stored.worksheets[0].iter_rows(values_only=True)
        width = len(fitted[0])  # the reader leaves out empty cells at the end of a row
        back = [["" if c is None else str(c) for c in row] + [""] * (width - len(row)) for row in rows]
    if back != fitted:
        raise DataError("the xlsx does not read back as it was written", where=str(path))
    return path


def _fit(text: str) -> str:
    return _NOT_IN_XLSX.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))[:_CELL_AT_MOST]


def _text(sheet: object, value: str) -> object:
    """A cell that is text whatever it looks like: no formula, no link, no number."""
    from openpyxl.cell import WriteOnlyCell

    cell = WriteOnlyCell(sheet, value=value or None)
    if value:
        cell.data_type = "s"
    return cell
