"""kore analyze as a user's shell runs it: on the embedded model, killed, in pipes, with bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kore.config.resolve import CalibrateSection, ModelSection
from kore.data.records import Sample
from kore.nullspace.calibrate import calibrate
from kore.nullspace.covariance import Covariance
from kore.nullspace.heatmaps import chosen, maps, open_covariances
from tests.cli.command import kore, said

STUDY = [
    "analyze",
    "capture",
    "--suite",
    "easy-vqa",
    "--samples",
    "demo:easy-vqa:4",
    "--set",
    "model.device=cpu",
]


@pytest.fixture(scope="module")
def covariances(tiny_llava: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two tasks' covariances of a tiny model."""
    from kore.models.load import load

    backbone = load(ModelSection(id=str(tiny_llava), device="cpu"))
    folder = tmp_path_factory.mktemp("covariances")
    for name, text in (("capitals", "What is the capital of Peru?"), ("letters", "a b c d e f g")):
        turns = [{"from": "human", "value": text}, {"from": "gpt", "value": "x"}]
        samples = [Sample.from_json({"id": str(i), "conversations": turns}) for i in range(3)]
        calibrate(backbone, samples, CalibrateSection(), folder / name, label=name)
    return [folder / "capitals", folder / "letters"]


@pytest.mark.slow
def test_a_study_of_the_embedded_model_is_one_object_in_a_pipe(tmp_path: Path) -> None:
    out = tmp_path / "study"
    options = ["-k", "64", "--methods", "plain,cosvd", "--limit", "2", "-o", out]
    done = kore(*STUDY, *options)
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert [(r["method"], r["components"]) for r in value["rows"]] == [("plain", "64"), ("cosvd", "64")]
    plain, ours = (r["lost"]["easy-vqa 4"] for r in value["rows"])
    assert 0 < ours < plain
    assert value["base"]["scores"].keys() == {"easy-vqa"} and value["settings"]["limit"] == 2
    assert {p.name for p in out.glob("capture.*")} == {f"capture.{k}" for k in ("json", "csv", "md", "png")}
    assert json.loads((out / "capture.json").read_text())["rows"] == value["rows"]
    assert "kore analyze capture" in (out / "capture.md").read_text()
    (out / "capture.json").rename(tmp_path / "capture.json")
    unfinished = kore("show", out)
    assert unfinished.returncode == 4 and "is not finished" in said(unfinished)[0]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["-k", "0"], 2, "--components: '0'"),
        (["-k", "500"], 2, "leaves nothing of"),
        (["-k", "8", "--suite", "nonsense"], 2, "unknown suite: nonsense"),
        (["-k", "8", "--covariance", "nowhere"], 4, "no covariance here: nowhere"),
        (["-k", "8", "--model", "./nowhere"], 4, "no such model"),
        (["-k", "8", "--samples", "none.jsonl"], 4, "no such file: none.jsonl"),
    ],
)
def test_bad_input_is_one_error_with_its_exit_code(
    options: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from kore_cli.errors import ended
    from kore_cli.main import app

    assert ended(lambda: app([*STUDY, *options, "--dry-run"], standalone_mode=False)) == code
    told = capsys.readouterr()
    assert told.out == "" and message in told.err and len(told.err.splitlines()) <= 3


def test_a_dry_run_counts_cells_and_answers_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from kore_cli.main import app

    out = tmp_path / "study"
    options = ["-k", "32,64", "--samples", "demo:text:2", "--limit", "3", "-o", str(out), "--dry-run"]
    app([*STUDY, *options], standalone_mode=False)
    value = json.loads(capsys.readouterr().out)
    assert value["covariances"] == ["easy-vqa 4", "text 2"]
    assert (value["cells"], value["answers"], value["linears"]) == (10, 33, 35)
    assert value["bytes"]["directions"] > 0 and not out.exists()


def test_heat_maps_in_a_pipe_are_one_object_a_line_and_the_picture_is_a_png(
    covariances: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "maps.png"
    done = kore(
        "analyze", "heatmap", *covariances, "--layers", "0,1", "--sites", "qkv,down", "--size", "8", "-o", out
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(r["name"], r["covariance"]) for r in rows] == [
        (f"layers.{layer}.{site}", name)
        for layer in (0, 1)
        for site in ("qkv", "down")
        for name in ("capitals", "letters")
    ]
    assert all(len(r["values"]) == len(r["values"][0]) == 8 for r in rows)
    assert rows[0]["alike"] == pytest.approx(1) and 0 < rows[1]["alike"] < 1
    assert out.read_bytes().startswith(b"\x89PNG")


def test_a_map_is_the_mean_of_the_absolute_covariance_per_token(covariances: list[Path]) -> None:
    opened = open_covariances(covariances)
    assert chosen(opened, None, None) == ["layers.0.qkv", "layers.1.qkv"]
    found = next(maps(opened, ["layers.1.qkv"], 4))
    covariance = Covariance(covariances[0])
    site = next(s for s in covariance.sites if s.name == "layers.1.qkv")
    block = covariance.matrix(site).abs()[8:16, 24:32].mean() / site.tokens
    assert found.values[1][3] == pytest.approx(float(block), rel=1e-3)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--layers", "7"], 2, "asks for layer 7"),
        (["--sites", "none"], 2, "holds no layers.0.none"),
        (["nowhere"], 4, "no covariance here: nowhere"),
    ],
)
def test_bad_choices_of_maps_are_refused(
    covariances: list[Path], options: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from kore_cli.errors import ended
    from kore_cli.main import app

    arguments = ["analyze", "heatmap", *map(str, covariances), *options]
    assert ended(lambda: app(arguments, standalone_mode=False)) == code
    assert message in capsys.readouterr().err


def test_without_matplotlib_a_picture_is_refused_and_the_extra_named(
    covariances: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from kore_cli.errors import ended
    from kore_cli.main import app

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    arguments = ["analyze", "heatmap", str(covariances[0]), "-o", "maps.png"]
    assert ended(lambda: app(arguments, standalone_mode=False)) == 4
    assert "kore-inject[plots]" in capsys.readouterr().err


def test_a_terminal_shows_maps_side_by_side_in_colours_or_shades() -> None:
    from kore_cli.widgets.heatmap import side_by_side

    ramp = [[1.0, 2.0], [3.0, 4.0]]
    rows = side_by_side([("first", ramp), ("second", ramp)], 40)
    assert "".join(s.text for s in rows[0]) == "fi  se"
    assert "".join(s.text for s in rows[1]) == "▀▀  ▀▀" and len(rows) == 2
    assert rows[1][0].style is not None and rows[1][0].style.color != rows[1][0].style.bgcolor
    plain = side_by_side([("first", ramp)], 40, colour=False)
    assert "".join(s.text for s in plain[1]).strip() == "▓█"
    assert len(side_by_side([("first", ramp), ("second", ramp)], 2)) == 4


def test_maps_are_printed_line_by_line_in_shades_where_there_is_no_colour(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from kore_cli.output import Output

    monkeypatch.setenv("COLUMNS", "40")
    Output().pictures([("a", [[1.0, 10.0, 100.0]] * 4), ("b", [[100.0, 10.0, 1.0]] * 4)])
    assert capsys.readouterr().out.splitlines() == ["a    b", " ▒█  █▒ ", " ▒█  █▒ "]


def cells(out: Path) -> set[str]:
    return {p.stem for p in (out / "cells").glob("*.json")}


@pytest.mark.slow
def test_a_killed_study_goes_on_at_its_cell_and_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    options = ["-k", "64,128,192", "--limit", "20", "--methods", "plain,cosvd", "--json"]

    def command(out: Path) -> list[Any]:
        return [sys.executable, "-m", "kore_cli", *STUDY, *options, "-o", str(out)]

    def finish(out: Path) -> tuple[dict[str, Any], str]:
        done = subprocess.run(command(out), capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stderr

    whole, _ = finish(tmp_path / "whole")
    out = tmp_path / "broken"
    with subprocess.Popen(command(out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        for _ in range(4800):
            if len(cells(out)) >= 2 or process.poll() is not None:
                break
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    kept = cells(out)
    assert 2 <= len(kept) < 6 and not (out / "capture.json").exists()
    again, told = finish(out)
    assert again["rows"] == whole["rows"] and again["base"] == whole["base"]
    assert not any(f"evaluate {name} (" in told for name in kept)
    _, told = finish(out)
    assert "evaluate" not in told
    other = kore(*STUDY, "-k", "64", "--limit", "20", "-o", out)
    assert other.returncode == 2 and "made with other settings" in other.stderr
