"""kore show and kore runs: every artifact as a table on a terminal, one object a line in pipes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kore.artifacts.run import Run, RunState
from kore.io.files import write_json
from kore_cli.render.scores import difference_rows
from tests.cli.command import KORE, kore, said
from tests.cli.test_pipes import on_a_terminal

GREEN, RED = "\x1b[32m", "\x1b[31m"


def scored(headline: float) -> dict[str, object]:
    return {
        "headline": headline,
        "headline_name": "CEM",
        "counts": {"samples": 9},
        "notes": ["[b]as is[/b]"],
        "items": {},
    }


def write_eval(folder: Path) -> Path:
    """A summary as an evaluation writes it: the base and one method."""
    keys = ("cem", "f1", "k_a", "k_r", "k_r_near", "avg", "hars")
    rows = [
        dict(zip(keys, (4.0, 6.0, 5.0, 80.0, None, 42.5, None), strict=True)) | {"method": "base"},
        dict(zip(keys, (60.0, 50.0, 55.0, 70.0, None, 62.5, 66.8), strict=True)) | {"method": "kore"},
    ]
    write_json(
        folder / "summary.json",
        {
            "table": [row | {"suites": 1, "of": 2} for row in rows],
            "suites": {"demo": {"facts": {}, "results": {"base": scored(5.0), "kore": scored(55.0)}}},
        },
    )
    return folder


def write_run(folder: Path, method: str = "kore", **values: object) -> Path:
    folder.mkdir(parents=True)
    state = RunState("finished", method, ["kore", "train"], {}, result={"loss": 0.5, "best": {"step": 3}})
    Run(folder).write(state)
    return folder


def test_results_are_a_table_with_gains_and_losses_in_colour(tmp_path: Path) -> None:
    shown = on_a_terminal(str(KORE), "show", str(write_eval(tmp_path / "results")), COLUMNS="120")
    assert f"{GREEN}55.00" in shown and f"{RED}70.00" in shown
    assert "K.A" in shown and "K.R" in shown and "1 of 2 suites" in shown
    assert "[b]as is[/b]" in shown and "{" not in shown and "near" not in shown
    plain = on_a_terminal(str(KORE), "show", str(tmp_path / "results"), COLUMNS="120", NO_COLOR="1")
    assert "\x1b" not in plain and "55.00" in plain


def test_results_in_a_pipe_are_one_object(tmp_path: Path) -> None:
    done = kore("show", write_eval(tmp_path / "results"))
    value = json.loads(done.stdout)
    assert value["kind"] == "eval" and value["summary"]["table"][1]["k_a"] == 55.0


def test_a_run_shows_what_its_numbers_are_and_its_newest_scores(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "mine")
    write_eval(folder / "eval" / "results")
    shown = on_a_terminal(str(KORE), "show", str(folder), COLUMNS="120")
    assert "loss, mean of the last 20 steps" in shown and "best checkpoint, by probe score" in shown
    assert "{" not in shown and "HARS" in shown


def test_runs_lists_state_method_scores_age_and_folder(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs" / "mine")
    write_eval(folder / "eval" / "results")
    write_run(tmp_path / "runs" / "other" / "run", method="lora")
    (tmp_path / "runs" / "odd").mkdir()
    (tmp_path / "runs" / "odd" / "run.json").write_text("{}")
    done = kore("runs", cwd=tmp_path)
    rows = {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert set(rows) == {"mine", "other/run", "odd"}
    assert rows["mine"]["k_a"] == 55.0 and rows["mine"]["k_r"] == 70.0 and rows["mine"]["method"] == "kore"
    assert rows["other/run"]["k_a"] is None and rows["other/run"]["state"] == "finished"
    assert rows["odd"]["state"] == "unreadable" and rows["mine"]["age_s"] < 600
    table = on_a_terminal(str(KORE), "runs", KORE_HOME=str(tmp_path / "runs"), COLUMNS="160")
    assert "K.A" in table and "55.00" in table and "{" not in table


def test_without_runs_the_next_command_is_named(tmp_path: Path) -> None:
    done = kore("runs", cwd=tmp_path)
    assert done.returncode == 0 and not done.stdout and "kore demo" in done.stderr


def test_a_folder_with_several_runs_is_listed(tmp_path: Path) -> None:
    for name in ("one", "two/run"):
        write_run(tmp_path / "all" / name)
    done = kore("show", tmp_path / "all")
    assert [json.loads(line)["name"] for line in done.stdout.splitlines()] == ["one", "two/run"]


@pytest.mark.parametrize("command", [("eval",), ("chat", "--once", "Who?"), ("dashboard", "--once")], ids=str)
def test_a_folder_with_several_runs_is_refused_with_their_names(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    for name in ("one", "two"):
        write_run(tmp_path / "all" / name)
    name, *options = command
    done = kore(name, "all", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert said(done) == ["error: all holds 2 runs", "  name one: all/one, all/two"]


def test_the_only_run_in_a_folder_is_meant(tmp_path: Path) -> None:
    write_run(tmp_path / "all" / "one" / "run")
    shown = json.loads(kore("show", tmp_path / "all").stdout)
    assert shown["kind"] == "run" and shown["folder"].endswith("all/one/run")
    watched = json.loads(kore("dashboard", tmp_path / "all", "--once").stdout)
    assert watched["run"].endswith("all/one/run")


def test_a_difference_is_a_gain_or_a_loss_where_its_interval_excludes_zero() -> None:
    rows = [{"difference": d, "clear": clear} for d, clear in ((4.0, True), (-4.0, True), (4.0, False))]
    cells = [row["difference"] for row in difference_rows(rows)]
    assert [(str(cell), cell.style) for cell in cells] == [
        ("+4.00", "green"),
        ("-4.00", "red"),
        ("+4.00", ""),
    ]
