"""kore eval, data and compare as processes: pipes, exit codes, kills, several workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tsv import write_all

KORE = [sys.executable, "-m", "kore_cli.main"]


def _run(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        [*KORE, *map(str, words)], capture_output=True, text=True, env=settings, timeout=240
    )


def _questions(folder: Path, count: int) -> Path:
    path = folder / "eval.jsonl"
    rows = [
        {"question_id": i, "text": f"What is {i}? " + "word " * (i % 9), "answer": "x"} for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.slow
def test_piped_results_are_one_json_object_and_a_gate_is_exit_code_6(
    tiny_llava: Path, tmp_path: Path
) -> None:
    path = _questions(tmp_path, 4)
    done = _run(
        "eval",
        tiny_llava,
        "--suite",
        f"{path}:retention",
        "-o",
        tmp_path / "out",
        "--max-new-tokens",
        3,
        "--set",
        "model.device=cpu",
        "--fail-under",
        "k_r=0.95",
    )
    assert done.returncode == 6, done.stderr
    told = json.loads(done.stdout)
    assert told["table"][0]["method"] == "base" and told["table"][0]["suites"] == 1
    assert "no share of it" in done.stderr


def test_data_check_lists_the_twelve_and_what_is_missing(tmp_path: Path) -> None:
    data = write_all(tmp_path / "data")
    (data / "POPE.tsv").unlink()
    (data / "MME.tsv").write_text("index\tquestion\n")
    done = _run("data", "check", "--data-dir", data)
    rows = {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert len(rows) == 12 and rows["POPE"]["state"] == "missing" and rows["MME"]["state"] == "bad"
    assert rows["MMDU"]["rows"] == 6 and rows["MMDU"]["size"] > 0 and len(rows["MMDU"]["md5"]) == 32
    assert done.returncode == 3 and "kore data fetch" in done.stderr and "MD5" in done.stderr


def test_errors_are_short_and_have_their_exit_codes(tmp_path: Path) -> None:
    cases = {
        ("eval", "kore-tiny", "--suite", "nonsense"): 2,
        ("eval", "kore-tiny", "--suite", "MME", "--data-dir", str(tmp_path)): 4,
        ("data", "fetch", "nonsense"): 2,
        ("compare", str(tmp_path)): 4,
    }
    for words, code in cases.items():
        done = _run(*words)
        lines = done.stderr.strip().splitlines()
        assert done.returncode == code, (words, done.stderr)
        assert done.stdout == "" and 1 <= len(lines) <= 3 and lines[0].startswith("error: ")


@pytest.mark.slow
def test_a_kill_loses_at_most_the_batch_in_flight_and_the_same_command_goes_on(
    tiny_llava: Path, tmp_path: Path
) -> None:
    path = _questions(tmp_path, 300)

    def command(out: Path) -> list[str]:
        return [
            *KORE,
            "eval",
            str(tiny_llava),
            "--suite",
            str(path),
            "-o",
            str(out),
            "--max-new-tokens",
            "12",
            "--set",
            "model.device=cpu",
            "--set",
            "eval.batch=4",
        ]

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole = subprocess.run(command(tmp_path / "whole"), capture_output=True, env=environment, check=True)
    log = tmp_path / "cut" / "answers" / "base" / "eval" / "answers-000.jsonl"
    process = subprocess.Popen(
        command(tmp_path / "cut"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_bytes().count(b"\n") >= 20):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = log.read_bytes().count(b"\n")
    again = subprocess.run(command(tmp_path / "cut"), capture_output=True, env=environment, check=True)
    made = json.loads((tmp_path / "cut" / "manifest.json").read_text())["facts"]["answers"]["base"]
    assert kept < 300 and made == {"asked": 300 - kept, "kept": kept}
    one, other = json.loads(whole.stdout), json.loads(again.stdout)
    assert one["table"] == other["table"]
    samples = [tmp_path / name / "samples" / "base" / "eval.jsonl" for name in ("whole", "cut")]
    assert samples[0].read_text() == samples[1].read_text()


@pytest.mark.slow
def test_two_workers_give_the_result_of_one(tiny_llava: Path, tmp_path: Path) -> None:
    path = _questions(tmp_path, 21)
    words = ["--suite", str(path), "--max-new-tokens", "6", "--set", "model.device=cpu"]
    alone = _run("eval", tiny_llava, *words, "-o", tmp_path / "one")
    assert alone.returncode == 0, alone.stderr
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    both = subprocess.run(
        [*launch, "-m", "kore_cli.main", "eval", str(tiny_llava), *words, "-o", str(tmp_path / "two")],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=240,
    )
    assert both.returncode == 0, both.stderr
    files = sorted((tmp_path / "two" / "answers" / "base" / "eval").glob("*.jsonl"))
    assert [f.name for f in files] == ["answers-000.jsonl", "answers-001.jsonl"]
    assert json.loads(alone.stdout)["table"] == json.loads(both.stdout)["table"]
    samples = [tmp_path / name / "samples" / "base" / "eval.jsonl" for name in ("one", "two")]
    assert samples[0].read_text() == samples[1].read_text()
