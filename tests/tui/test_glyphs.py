"""Texts in a number of columns, whatever the script."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.cells import cell_len

from kore_cli.dashboard.spectra_reader import Site
from kore_cli.dashboard.tree_index import Entry
from kore_cli.screens.knowledge import row, tree_text
from kore_cli.screens.spectra import facts
from kore_cli.widgets.formatting import fit, fit_ends, padded


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


def test_a_tree_is_wrapped_by_columns() -> None:
    turn = {"question": "这张图片里的国家的首都叫什么名字呢？" * 3, "answer": "one two three four " * 9}
    lines = tree_text({"trunk": [turn]}, 40).split("\n")
    assert len(lines) > 8 and max(line.cell_length for line in lines) <= 40
    said = "".join(line.plain for line in lines)
    assert sum(said.count(c) for c in "首都") == 6 and said.count("three") == 9


def test_the_columns_of_spectra_end_where_their_heads_do() -> None:
    sites = [(label, Site("s", 0, "attn", 384, tokens=9e3)) for label in ("协方差", "a covariance")]
    head, first, *_ = facts(sites, 100).split("\n")
    assert head.cell_length == first.cell_length
