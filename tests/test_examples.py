"""Every example runs as it stands in its first lines, with few steps."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def run(name: str, *args: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_an_example_is_short() -> None:
    assert [p.name for p in EXAMPLES.glob("*.py") if len(p.read_text().splitlines()) >= 80] == []
    assert len(list(EXAMPLES.glob("*.py"))) == 5


def test_a_hand_built_model_keeps_its_first_task() -> None:
    printed = run("constraint_on_your_model.py", "--steps", "100")
    before, after, new, base = (float(line.rpartition(" ")[2]) for line in printed.splitlines())
    assert after < 5 * before
    assert new < 0.1 * base


def test_the_transformers_trainer() -> None:
    assert "A matrices, trainable: False" in run("transformers_trainer.py", "--steps", "2")


def test_trls_trainer_or_a_message_that_it_is_missing() -> None:
    printed = run("trl_sft.py", "--steps", "2")
    there = importlib.util.find_spec("trl") is not None
    assert ("A matrices, trainable: False" if there else "trl is not installed") in printed


def test_items_become_an_adapter_and_its_results_a_table(tmp_path: Path) -> None:
    few = ("--steps", "2", "--old", "16", "--items", "2")
    printed = run("items_to_answers.py", "--output", tmp_path, *few)
    assert "K.A" in printed and (tmp_path / "peft" / "adapter_model.safetensors").is_file()
    table = tmp_path / "scores.csv"
    assert "finished" in run("results_to_pandas.py", tmp_path / "run", "--csv", table)
    assert {line.split(",")[2] for line in table.read_text().splitlines()} == {"method", "base", "kore"}


def cells(kind: str) -> list[str]:
    notebook = json.loads((EXAMPLES / "kore.ipynb").read_text())
    assert notebook["nbformat"] == 4
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_the_notebook_keeps_no_outputs_and_compiles() -> None:
    notebook = json.loads((EXAMPLES / "kore.ipynb").read_text())
    for cell in notebook["cells"]:
        assert {"id", "cell_type", "metadata", "source"} <= cell.keys()
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            compile("".join(cell["source"]), "cell", "exec")
    assert len(cells("markdown")) >= 5


@pytest.mark.slow
def test_the_notebooks_cells_run_in_order(tmp_path: Path) -> None:
    script = tmp_path / "cells.py"
    script.write_text("\n\n".join(cells("code")))
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; exec(compile(open(sys.argv[1]).read(), 'cells', 'exec'))",
            script,
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        timeout=280,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg", "KORE_EXAMPLE_STEPS": "4"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
