"""Writes a table as CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from kore.io.files import atomic_write


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    """Write rows under a header line; a missing value is an empty cell."""
    with atomic_write(path) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([["" if cell is None else cell for cell in row] for row in rows])
    return path
