"""kore.distributed: who a process is, the group of one launch, and errors of rank 0 on every rank."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from kore.config.resolve import TrainSection
from kore.distributed import (
    TIMEOUT,
    World,
    any_rank,
    barrier,
    broadcast,
    current,
    join,
    launched,
    on_first_rank,
    sum_over_ranks,
)
from kore.errors import MissingArtefact
from kore.training.hf_args import Split, arguments

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def ranks() -> list[dict[str, Any]]:
    """The output of `tests.ranks` on two processes."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launch, "-m", "tests.ranks"],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    values = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(values) == 2
    return sorted(values, key=lambda v: not v["kore"]["same"])  # rank 0 raises the original


def test_every_rank_gets_sums_broadcasts_and_the_first_ones_result(ranks: list[dict[str, Any]]) -> None:
    for value in ranks:
        assert value["broadcast"] == "of 0" and value["result"] == [0, "made"]
        assert value["any"] == [True, False]
        assert value["sum"] == [1.0, 1.0] and value["matrix"] == [3.0] * 4


def test_the_group_is_shared_inside_and_destroyed_by_who_created_it(ranks: list[dict[str, Any]]) -> None:
    for value in ranks:
        assert value["nested"] and value["left"] == 1 and value["again"]


def test_an_error_of_rank_0_is_raised_on_every_rank(ranks: list[dict[str, Any]]) -> None:
    first, second = ranks
    same = {"text": "a.json:1: a and b", "hint": "make both", "exit_code": 4, "type": "NeedsTwo"}
    assert first["kore"].items() >= same.items() and second["kore"].items() >= same.items()
    assert first["other"]["type"] == "OSError" and not first["other"]["kore"]
    assert second["other"]["type"] == "FirstRankError" and second["other"]["exit_code"] == 1
    assert second["other"]["text"] == "rank 0 failed with OSError: [Errno 28] No space left on device"
    assert first["interrupt"]["type"] == "KeyboardInterrupt" and second["interrupt"]["exit_code"] == 130


def test_what_cannot_be_sent_raises_on_every_rank_too(ranks: list[dict[str, Any]]) -> None:
    first, second = ranks
    assert first["local"]["type"] == "Local"
    assert second["local"].items() >= {"type": "MissingArtefact", "text": "gone", "hint": "look"}.items()
    assert "pickle" in first["unpicklable"].lower()
    assert second["unpicklable"].startswith("FirstRankError: rank 0 failed with ")


def test_one_process_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with join() as world:
        assert world == current() == launched() == World(0, 1, 0, 1)
        assert not torch.distributed.is_initialized()
        barrier()
        local = object()  # nothing is sent, so nothing needs to be picklable
        assert broadcast(local) is local and on_first_rank(lambda: local) is local
        assert sum_over_ranks([2, 3]) == [2, 3] and any_rank(True) and not any_rank(False)


def test_the_launchers_environment_names_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert launched() == World(rank=3, size=4, local_rank=1, local_size=2) and not launched().first
    assert current() == World()  # without a group nothing is shared out


def test_an_incomplete_launch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(MissingArtefact, match="without MASTER_ADDR"), join():
        pass


def test_every_collective_waits_a_day(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Rank 0 may work longer alone than torch would wait."""
    waits: list[object] = []
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda *_, timeout=None, **__: waits.append(timeout)
    )
    store = torch.distributed.HashStore()
    monkeypatch.setattr(
        sys.modules["torch.distributed.rendezvous"], "rendezvous", lambda *_, **__: iter([(store, 0, 2)])
    )
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    for backend in (None, "gloo"):
        with join(backend=backend):  # type: ignore[arg-type]
            pass
    assert waits == [TIMEOUT] * 2
    monkeypatch.delenv("WORLD_SIZE")
    made = arguments(TrainSection(), tmp_path, steps=1, parts=Split(1, 1, 1), cpu=True, bf16=False)
    assert made.ddp_timeout == TIMEOUT.total_seconds()


def test_only_one_module_uses_torch_distributed() -> None:
    users = [
        str(path.relative_to(ROOT))
        for package in ("kore", "kore_cli")
        for path in (ROOT / package).rglob("*.py")
        if any(word in path.read_text(encoding="utf-8") for word in ("torch.distributed", "WORLD_SIZE"))
    ]
    assert users == ["kore/distributed.py"]
