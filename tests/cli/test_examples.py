"""What examples/ holds works as it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import kore

ITEMS = Path(__file__).parents[2] / "examples" / "items" / "items.jsonl"


def test_the_example_items_are_planned_without_a_loss() -> None:
    done = kore("inject", ITEMS, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    fit = json.loads(done.stdout)["augment"]["fit"]
    assert not fit["left_out"] and not fit["not_taught"]


@pytest.mark.slow
def test_the_example_items_are_learned_completely(tmp_path: Path) -> None:
    done = kore("inject", ITEMS, "-o", tmp_path / "run", "--json", timeout=1800)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert [one["verdict"] for one in outcome["verdicts"]] == ["learned"] * 3, outcome["verdicts"]
    assert outcome["advice"] is None
