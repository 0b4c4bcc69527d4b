"""kore augment, show and combine as a shell uses them: pipes, exit codes, what is said where."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.augment_loopback import gadgets, loopback
from tests.cli.command import kore, said


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KORE_CACHE", str(tmp_path / "kept"))


@pytest.fixture
def items(tmp_path: Path, picture: Path) -> Path:
    """Three items whose picture lies beside the file."""
    shutil.copy(picture, tmp_path / "beside.png")
    path = tmp_path / "items.jsonl"
    lines = [{**item.to_json(), "image": "beside.png"} for item in gadgets(3)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_items_in_a_folder_out_and_one_json_line_on_stdout(items: Path, tmp_path: Path) -> None:
    done = kore("augment", items, "-o", tmp_path / "out", "--copies", "1")
    assert done.returncode == 0, done.stderr
    (report,) = objects(done.stdout)
    assert report["statistics"]["items"] == 3 and report["state"] == "fresh"
    assert "weaker data" in done.stderr
    again = kore("augment", items, "-o", tmp_path / "out", "--copies", "1")
    assert objects(again.stdout)[0]["state"] == "done" and "nothing to do" in again.stderr


def test_stdin_to_stdout_streams_samples_whose_pictures_can_be_opened(items: Path, tmp_path: Path) -> None:
    done = kore("augment", "-", "-o", "-", "--copies", "1", "-q", stdin=items.read_bytes(), cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    samples = objects(done.stdout)
    assert [s["id"].split("-")[0] for s in samples] == sorted(s["id"].split("-")[0] for s in samples)
    assert all(Path(s["image"]).is_absolute() and Path(s["image"]).is_file() for s in samples)
    kore("augment", items, "-o", tmp_path / "out", "--copies", "1", "-q")
    written = objects((tmp_path / "out" / "samples.jsonl").read_text())
    assert [s["conversations"] for s in written] == [s["conversations"] for s in samples]


def test_the_result_does_not_hang_on_how_python_orders_sets(tmp_path: Path) -> None:
    source = Path(__file__).parents[2] / "benchmarks" / "items" / "items.jsonl"
    for number in ("1", "2"):
        options = ["--negatives", "1", "--forest", "--set", "augment.vqa=9", "-q"]
        done = kore("augment", source, "-o", tmp_path / number, *options, PYTHONHASHSEED=number)
        assert done.returncode == 0, done.stderr
    for name in ("tree.jsonl", "samples.jsonl", "eval.jsonl", "rejected.jsonl"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name


def test_a_bad_line_names_file_line_and_reason_or_is_left_out(items: Path, tmp_path: Path) -> None:
    lines = items.read_text().splitlines()
    lines.insert(1, '{"id": "x", "kind": "rumour", "type": "t", "title": "T", "text": ""}')
    lines.insert(3, "{broken")
    items.write_text("\n".join(lines) + "\n")
    done = kore("augment", items, "-o", tmp_path / "out")
    assert done.returncode == 3 and "2 faults" in said(done)[-3]
    assert f"{items}:2: kind" in said(done)[-2] and f"{items}:4: not JSON" in said(done)[-1]
    assert not (tmp_path / "out").exists()
    done = kore("augment", items, "-o", tmp_path / "out", "--keep-going")
    assert done.returncode == 0 and objects(done.stdout)[0]["left_out"] == 2
    assert f"{items}:2" in done.stderr and f"{items}:4" in done.stderr


def test_an_item_without_its_picture_is_told_and_left_out_in_a_dry_run_too(
    items: Path, tmp_path: Path
) -> None:
    items.write_text(items.read_text().replace("beside.png", "gone.png", 1))
    done = kore("augment", items, "--dry-run", "--keep-going")
    assert objects(done.stdout)[0]["items"] == 2 and "left out: item" in done.stderr
    done = kore("augment", items, "-o", tmp_path / "out", "--keep-going")
    assert objects(done.stdout)[0]["left_out"] == 1 and "warning: 1 left out" in done.stderr


def test_a_dry_run_prices_the_calls_and_writes_nothing(items: Path, tmp_path: Path) -> None:
    priced = ["--set", "augment.price_in=2.5", "--set", "augment.price_out=10"]
    with loopback() as server:
        model = ["--teacher", "openai:m", "--base-url", server.url]
        first = objects(kore("augment", items, "--dry-run", *model, *priced).stdout)[0]
        assert "requests" not in server.stats()
        assert first["calls"] == 12 and first["cached"] == 0 and 0 < first["money"] < 1
        assert kore("augment", items, "-o", tmp_path / "out", *model).returncode == 0
    second = objects(kore("augment", items, "--dry-run", *model, *priced).stdout)[0]
    assert second["cached"] == second["calls"] == 12 and second["money"] == 0


def test_a_dry_run_goes_through_the_same_checks(items: Path, tmp_path: Path) -> None:
    (tmp_path / "beside.png").unlink()
    done = kore("augment", items, "--dry-run")
    assert done.returncode == 3 and "no such picture" in done.stderr and "--image-root" in done.stderr
    assert "no item could be read" in kore("augment", items, "--dry-run", "--keep-going").stderr
    done = kore("augment", items, "--dry-run", "--teacher", "openai:gpt-4o")
    assert done.returncode == 2 and "OPENAI_API_KEY" in done.stderr
    done = kore("augment", items, "--dry-run", "--images", "local:/nowhere")
    assert done.returncode == 4


def test_usage_errors_name_the_next_step(items: Path, tmp_path: Path) -> None:
    assert "-o DIR" in kore("augment", items).stderr
    for options, code, words in (
        (["--shard", "4/3"], 2, "I/N"),
        (["--format", "csv"], 2, "items, evoke or auto"),
        (["--teacher", "gpt"], 2, "openai:MODEL"),
        (["--grounding", "maybe"], 3, "grounding"),
        (["--encoder", "vgg"], 2, "clip:MODEL/TAG"),
        (["--templates", "/nowhere.toml"], 3, "/nowhere.toml"),
    ):
        done = kore("augment", items, "-o", tmp_path / "out", *options)
        assert done.returncode == code and words in done.stderr, (options, done.stderr)
        assert len(said(done)) <= 4 and "Traceback" not in done.stderr


def test_the_cost_limit_ends_with_6_and_a_higher_one_goes_on(items: Path, tmp_path: Path) -> None:
    with loopback() as server:
        command = [
            "augment",
            items,
            "-o",
            tmp_path / "out",
            "--teacher",
            "openai:m",
            "--base-url",
            server.url,
        ]
        command += ["--set", "augment.price_in=1000", "--set", "augment.price_out=1000", "--concurrency", "1"]
        stopped = kore(*command, "--max-cost", "1.5")
        assert (
            stopped.returncode == 6 and "error: the next call might pass the limit of 1.5" in stopped.stderr
        )
        assert kore(*command, "--max-cost", "1000").returncode == 0
        assert server.stats()["requests"] == 12


def test_show_draws_one_tree_and_tells_the_statistics(items: Path, tmp_path: Path) -> None:
    kore("augment", items, "-o", tmp_path / "out", "-q")
    (report,) = objects(kore("show", tmp_path / "out").stdout)
    assert report["kind"] == "tree" and report["kore_74k"]["samples"] == 74734
    (tree,) = objects(kore("show", tmp_path / "out", "--id", "g1").stdout)
    assert tree["item"]["title"] == "Gadget 1" and tree["trunk"][0]["origin"] == "heuristic"
    missing = kore("show", tmp_path / "out", "--id", "g7")
    assert missing.returncode == 3 and "g1" in missing.stderr
    (told,) = objects(kore("show", tmp_path / "out" / "samples.jsonl").stdout)
    assert told["kind"] == "samples" and told["records"] == report["statistics"]["samples"]
    (told,) = objects(kore("show", items).stdout)
    assert told["kind"] == "items" and told["records"] == 3
    assert kore("show", tmp_path / "nowhere").returncode == 4


def test_parts_are_combined(items: Path, tmp_path: Path) -> None:
    parts = [tmp_path / f"p{n}" for n in (1, 2)]
    for number, part in enumerate(parts, 1):
        assert kore("augment", items, "-o", part, "--shard", f"{number}/2", "-q").returncode == 0
    done = kore("combine", *parts, "-o", tmp_path / "all")
    assert done.returncode == 0 and objects(done.stdout)[0]["items"] == 3
    kore("augment", items, "-o", tmp_path / "whole", "-q")
    assert (tmp_path / "all" / "samples.jsonl").read_bytes() == (
        tmp_path / "whole" / "samples.jsonl"
    ).read_bytes()
    assert kore("combine", parts[0], "-o", tmp_path / "half").returncode == 4
