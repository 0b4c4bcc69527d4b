"""Verdicts and figures of the original scorers, recorded by ``tests.oracle.run --golden``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.oracle import ours
from tests.oracle.compare import differences
from tests.oracle.run import KNOWN, check_known

GOLDEN: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "benchmarks.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("mode", ["plain", "judged"])
@pytest.mark.parametrize("pair", GOLDEN, ids=lambda pair: pair["case"]["name"])
def test_every_verdict_and_figure_is_the_originals(pair: dict[str, Any], mode: str) -> None:
    theirs, name = pair["original"][mode], pair["case"]["name"]
    if theirs is None:
        pytest.skip("this benchmark has no judge")
    scored = ours.score(pair["case"], mode == "judged")
    assert list(differences(theirs["samples"], ours.samples(name, scored))) == []
    assert list(differences(theirs["figures"], ours.figures(name, scored))) == []


def test_the_golden_pairs_cover_the_twelve() -> None:
    assert len(GOLDEN) == 12
    assert all(len(pair["case"]["said"]) >= 60 for pair in GOLDEN)


def test_our_side_of_the_known_differences_is_as_stated() -> None:
    recorded: dict[str, list[Any]] = {"equal": [], "ocr": []}
    for kind, _, theirs, _ in KNOWN.values():
        recorded[kind].append(theirs)
    assert check_known(recorded) == []
