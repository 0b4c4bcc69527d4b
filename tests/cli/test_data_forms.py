"""Data in other data sets' forms, through the command: what is read, what is refused, what is reported."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.cli.command import KORE, kore, loaded
from tests.cli.test_inject_inputs import ITEM, write_items

TURNS = [{"from": "human", "value": "What is it?"}, {"from": "gpt", "value": "A film."}]


def test_faults_and_unread_keys_are_reported_before_torch_is_loaded(tmp_path: Path) -> None:
    rows = [{"conversations": TURNS, "imgae": "x"}, *[{"conversations": TURNS, "video": "x.mp4"}] * 22]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = str(tmp_path / "s.jsonl")
    train = ["train", "--data", path, "--set", "train.method=lora", "-o", str(tmp_path / "out")]
    for command in (train, ["calibrate", "--samples", path, "-o", str(tmp_path / "out")]):
        done, modules = loaded(tmp_path, *command)
        assert done.returncode == 3, done.stderr
        assert f"warning: {path}: keys that are not used: imgae (did you mean image?)" in done.stderr
        assert "error: 22 faults" in done.stderr and "and 2 more" in done.stderr
        assert f"{path}:2: video: not supported" in done.stderr
        assert "torch" not in modules, command


def test_faulty_items_and_questions_are_listed_before_torch_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"id": 1, "tools": [1]}\n{"id": 1}\n[]\n')
    path = str(tmp_path / "r.jsonl")
    for command in (["inject", path, "-o", str(tmp_path / "out")], ["eval", "kore-tiny", "--suite", path]):
        done, modules = loaded(tmp_path, *command)
        assert done.returncode == 3 and "error: 3 faults" in done.stderr, done.stderr
        assert f"{path}:1: tools: not supported" in done.stderr
        assert "torch" not in modules, command


def test_process_substitution_is_read_like_standard_input(tmp_path: Path) -> None:
    write_items(tmp_path)
    runs = []
    for source in ("items.jsonl", "<(cat items.jsonl)", "- < items.jsonl"):
        line = f"'{KORE}' augment {source} -o - --set augment.images=none"
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        runs.append([json.loads(row)["conversations"] for row in done.stdout.splitlines()])
    assert runs[0] and runs[0] == runs[1] == runs[2]


def test_a_dry_run_reads_items_from_a_table_and_a_folder(tmp_path: Path) -> None:
    write_items(tmp_path)
    (tmp_path / "parts").mkdir()
    for number in (1, 2):
        row = {**ITEM, "id": str(number), "image_path": "../good.png"}
        row.pop("image")
        (tmp_path / "parts" / f"train-{number}.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "items.csv").write_text(
        "id,kind,type,title,text,facts.capital,image_url\na,entity,country,Peru,Its capital is Lima.,Lima,good.png\n"
    )
    for source, count in (("parts", 2), ("items.csv", 1)):
        done = kore("inject", source, "-o", "out", "--dry-run", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["items"] == count
