"""kore calibrate, combine and show as processes: every source, kills at every layer, two processes."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from kore.config.schema import ONEVISION_SUBSETS
from kore.io.jsonl import write_jsonl
from kore.nullspace.covariance import Covariance
from tests.cli.command import kore as run_kore
from tests.cli.command import said
from tests.tiny import llava

kore = partial(run_kore, timeout=900)


def png(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((24, 20), 20 + shade).convert("RGB").save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with a tiny copy of the four subsets and a benchmark of two rows."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    root = tmp_path / "data"
    for name in ONEVISION_SUBSETS:
        rows: list[dict[str, Any]] = []
        for n in range(5):
            turns = [
                {"from": "human", "value": f"<image>\nQuestion {n}?"},
                {"from": "gpt", "value": f"Answer {n}"},
            ]
            # the first row of each subset cannot be used, and is replaced
            image = {"bytes": png(n) if n else b"broken", "path": f"{n}.png"}
            rows.append({"id": f"r{n}", "image": image, "conversations": turns})
        (root / "onevision" / name).mkdir(parents=True)
        parquet.write_table(
            pa.Table.from_pylist(rows), root / "onevision" / name / "train-00000-of-00001.parquet"
        )
    cells = [base64.b64encode(png(40 + n)).decode() for n in range(2)]
    lines = ["index\timage\tquestion\tanswer", *(f"{n}\t{c}\tIs it {n}?\tYes" for n, c in enumerate(cells))]
    (root / "MME.tsv").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.slow
def test_with_no_other_flag_the_profile_says_model_count_and_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORE_HOME", str(tmp_path / "home"))
    done = kore("calibrate", "--samples", "demo", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    folder = Path(told["out"])
    assert folder.parent == tmp_path / "home" / "covariance" and told["label"] == "demo 640"
    assert Covariance(folder).manifest.facts["tokens"] == told["tokens"] > 640
    again = kore("calibrate", "--samples", "demo", "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["out"] == str(folder)  # the same command finds it again


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Samples in OpenAI's form, twelve of growing length."""
    (tmp_path / "one.png").write_bytes(png(3))
    rows = []
    for n in range(12):
        words = {"type": "text", "text": "What is this" + " thing" * n + "?"}
        content = [{"type": "image"}, words] if n % 2 else [words]
        turns = [{"role": "user", "content": content}, {"role": "assistant", "content": f"Thing {n}"}]
        rows.append({"id": f"m{n}", "image": "one.png" if n % 2 else None, "messages": turns})
    write_jsonl(tmp_path / "mine.jsonl", rows)
    return tmp_path / "mine.jsonl"


def same(a: Path, b: Path, tolerance: float) -> bool:
    one, two = Covariance(a), Covariance(b)
    assert [s.name for s in one.sites] == [s.name for s in two.sites]
    assert [s.tokens for s in one.sites] == [s.tokens for s in two.sites]
    return all(
        float((one.matrix(s) - two.matrix(t)).norm()) <= tolerance * float(one.matrix(s).norm())
        for s, t in zip(one.sites, two.sites, strict=True)
    )


@pytest.mark.slow
def test_three_sources_in_one_call_then_shown_summed_and_refused(
    tiny_llava: Path, data: Path, mine: Path, tmp_path: Path
) -> None:
    model = ["--model", tiny_llava]
    call = ["calibrate", *model, "--samples", "onevision:8", "--samples", "bench:MME:2"]
    call += [
        "--samples",
        f"{mine}:3",
        "--seed",
        "5",
        "--held-out",
        "2",
        "--set",
        "adapter.rank=4",
        "-o",
        tmp_path / "a",
    ]
    dry = kore(*call, "--dry-run", "--json", KORE_DATA=str(data))
    assert dry.returncode == 0, dry.stderr
    plan = json.loads(dry.stdout)
    assert plan["samples"] == 13 and plan["covariance_layer"] > 0 and plan["disk"] > 0
    assert "sums " in dry.stderr and " on disk" in dry.stderr and "weights " in dry.stderr
    assert not (tmp_path / "a").exists()
    done = kore(*call, "--json", KORE_DATA=str(data))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["label"] == "onevision 8 + bench MME 2 + mine 3"
    ids = [s["id"] for s in Covariance(tmp_path / "a").manifest.facts["samples"]]
    assert [sum(i.startswith(f"{c}/") for i in ids) for c in ONEVISION_SUBSETS] == [2, 2, 2, 2]
    assert not any(i.endswith("/r0") for i in ids)
    assert {i for i in ids if i.startswith("MME/")} == {"MME/0", "MME/1"}
    assert sum(i.startswith("m") for i in ids) == 3

    told = json.loads(kore("show", tmp_path / "a", "--json").stdout)
    assert {s["site"] for s in told["sites"]} == {
        f"layers.{n}.{s}" for n in range(2) for s in ("qkv", "o", "gate_up", "down")
    }
    for site in told["sites"]:
        assert site["tokens"] > site["d_in"] and site["condition"] > 1 and 0 < site["energy_smallest"] < 0.1
    means = told["interference"]["summary"]
    assert means["kore"] < means["random"] and means["kore"] < means["lora"]
    table = kore("show", tmp_path / "a", "--rank", "3", COLUMNS="200")
    assert json.loads(table.stdout)["sites"][0]["rank"] == 3  # a pipe gets JSON
    spectra = json.loads((tmp_path / "a" / "spectra.json").read_text())
    assert all(s["held_out"] is not None and s["eigenvalues"] for s in spectra["sites"])

    second = kore("calibrate", *model, "--samples", mine, "-n", "4", "-o", tmp_path / "b", "--json")
    assert second.returncode == 0, second.stderr
    parts = [tmp_path / "a", tmp_path / "b"]
    done = kore("combine", *parts, "-o", tmp_path / "c", "--weights", "1,0.25", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["label"].endswith(" + 0.25 x mine 4")
    a, b, c = (Covariance(tmp_path / name) for name in "abc")
    for site in c.sites:
        x = a.matrix(a.site_of(site.linears[0])) + 0.25 * b.matrix(b.site_of(site.linears[0]))
        assert torch.allclose(c.matrix(site), x, rtol=1e-14)
    for weights in ("1", "1,-1", "1,x"):
        assert kore("combine", *parts, "-o", tmp_path / "d", "--weights", weights).returncode == 2
    other = llava(tmp_path / "other", seed=9)
    kore("calibrate", "--model", other, "--samples", mine, "-o", tmp_path / "e")
    refused = kore("combine", tmp_path / "a", tmp_path / "e", "-o", tmp_path / "f")
    assert refused.returncode == 3 and "is of another model than" in refused.stderr


@pytest.mark.slow
def test_a_missing_copy_of_onevision_is_one_error_that_names_the_command(tmp_path: Path) -> None:
    done = kore("calibrate", "--samples", "onevision", KORE_DATA=str(tmp_path))
    assert done.returncode == 4 and done.stdout == ""
    assert len(said(done)) <= 3 and "kore data fetch onevision" in done.stderr
    assert "KORE_DATA" in done.stderr and "calibrate.onevision" in done.stderr


DIE = """
import os, sys
layer, where = int(sys.argv[1]), sys.argv[2]
from kore.nullspace import calibrate
write, replace = calibrate.write_shard, os.replace
def before(folder, n, *rest):
    if n == layer and where == "before":
        os.kill(os.getpid(), 9)
    if n == layer and where == "within":
        os.replace = lambda *a: os.kill(os.getpid(), 9)
    write(folder, n, *rest)
    if n == layer and where == "after":
        os.kill(os.getpid(), 9)
calibrate.write_shard = before
from kore_cli.main import main
sys.argv = ["kore", *sys.argv[3:]]
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["8GiB", "112KiB", "77KiB"])
def test_a_calibration_killed_at_each_layer_in_turn_ends_as_an_unbroken_one(
    mine: Path, tmp_path: Path, memory: str
) -> None:
    model = llava(tmp_path / "model", layers=3)
    call = ["calibrate", "--model", str(model), "--samples", str(mine), "-n", "4", "--memory", memory]
    whole = kore(*call, "-o", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    broken = [*call, "-o", str(tmp_path / "broken")]
    for layer, where in ((0, "before"), (0, "after"), (1, "within"), (2, "before")):
        died = subprocess.run(
            [sys.executable, "-c", DIE, str(layer), where, *broken],
            capture_output=True,
            timeout=1200,
            check=False,
        )
        assert died.returncode == -signal.SIGKILL, died.stderr
    assert kore("show", tmp_path / "broken").returncode == 4
    done = kore(*broken, "--json")
    assert done.returncode == 0, done.stderr
    assert same(tmp_path / "whole", tmp_path / "broken", 1e-12)
    assert not (tmp_path / "broken" / "hidden-states").exists()


@pytest.mark.slow
def test_two_processes_sum_the_matrices_of_one(mine: Path, tiny_llava: Path, tmp_path: Path) -> None:
    call = ["calibrate", "--model", str(tiny_llava), "--samples", str(mine), "-n", "12", "--json"]
    call += ["--set", "calibrate.batch=2", "--held-out", "0"]
    one = kore(*call, "-o", tmp_path / "one")
    assert one.returncode == 0, one.stderr
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    two = subprocess.run(
        [*launch, "-m", "kore_cli", *call, "-o", str(tmp_path / "two")],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert two.returncode == 0, two.stderr
    assert json.loads(two.stdout)["sites"] == 8  # one process speaks
    assert same(tmp_path / "one", tmp_path / "two", 1e-12)
