"""A truncation study as tables, or as one object."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kore.errors import MissingArtefact
from kore.io.files import read_json
from kore_cli.output import Output


def print_capture(value: Mapping[str, Any], output: Output) -> None:
    """Scores and lost energy over dropped components."""
    from kore.studies.truncation_study.report import tables

    if not output.human:
        output.record(value)
        return
    for table in tables(value):
        output.table(table.rows, table.columns, title=table.title)
        output.line("")


def show_capture(folder: Path, output: Output) -> None:
    """Print the result of a finished study.

    Raises:
        MissingArtefact: it is not finished.
    """
    from kore.studies.truncation_study.report import RESULT

    if not (folder / RESULT).is_file():
        raise MissingArtefact(
            f"the capture study {folder} is not finished",
            hint="repeat the kore analyze capture command to resume it",
        )
    print_capture({**read_json(folder / RESULT), "out": str(folder)}, output)
