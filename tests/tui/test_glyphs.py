"""Texts in a number of columns, whatever the script."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.cells import cell_len

from kore_cli.glyphs import fit, fit_ends, padded
from kore_cli.library import Entry
from kore_cli.screens.knowledge import row


@pytest.mark.parametrize(
    "text", ["short", "a longer text than that", "中文标题很长的一个例子", "a中b文c标d题e"]
)
@pytest.mark.parametrize("width", [1, 2, 7, 8, 30])
def test_a_text_takes_no_more_columns_than_there_are(text: str, width: int) -> None:
    for fitted in (fit(text, width), fit_ends(text, width)):
        assert cell_len(fitted) <= width and (fitted == text) == (cell_len(text) <= width)
    assert cell_len(padded(text, width)) == width
    assert row(Entry(Path("t"), 0, text, "类型"), 30).cell_length <= 30


def test_a_command_keeps_its_start_and_its_end() -> None:
    command = "kore chat /scratch/some/very/long/place/runs/mine --compare"
    assert fit_ends(command, 30) == "kore chat /…uns/mine --compare"
