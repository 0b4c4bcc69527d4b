"""Worker processes give the same batches in the same order, pass errors on, and die with their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from kore.artifacts.events import EventTail, EventWriter
from kore.artifacts.run import Run
from kore.config.resolve import ModelSection, TrainSection
from kore.data.records import Sample
from kore.errors import DataError
from kore.methods.registry import make_method
from kore.models.load import load
from kore.models.processing import Encoder
from kore.training.dataset import Located
from kore.training.features import Cache, Features, Stream
from kore.training.run import train
from kore.training.trainer import Loop
from kore.training.workers import in_order, worker_count
from tests.rows import Rows

SMALL = 2e-5  # GiB: two images of the tiny model


@pytest.fixture
def samples(tmp_path: Path) -> list[Located]:
    rows = []
    for i in range(10):
        path = tmp_path / f"{i}.png"
        Image.effect_noise((40, 30), 64 + i).convert("RGB").save(path)
        turns = [
            {"from": "human", "value": "<image>\nWhat is the capital?"},
            {"from": "gpt", "value": "Lima " * (1 + i % 4)},
        ]
        sample = Sample.model_validate({"id": f"s{i}", "image": str(path), "conversations": turns})
        rows.append(Located(f"data.jsonl:{i + 1}", sample))
    return rows


def go(base: Path, folder: Path, samples: list[Located], **more: Any) -> dict[str, torch.Tensor]:
    section = TrainSection(method="lora", lr=1e-2, epochs=2, batch=4, save_steps=3, cache_gib=SMALL, **more)
    with EventWriter(folder) as events:
        train(
            load(ModelSection(id=str(base))),
            samples,
            section,
            make_method("lora"),
            Run(folder),
            events,
            rank=4,
        )
    return load_file(folder / "adapter" / "adapter_model.safetensors")


class _Killed(BaseException):
    pass


@pytest.mark.slow
def test_workers_change_nothing_of_a_run_that_was_stopped_and_resumed(
    tiny_llava: Path, tmp_path: Path, samples: list[Located], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = go(tiny_llava, tmp_path / "alone", samples, workers=0)
    real = Loop.training_step

    def dies(self: Loop, *args: Any, **rest: Any) -> Any:
        if self.state.global_step == 4:
            raise _Killed
        return real(self, *args, **rest)

    contexts = []
    load_of = Loop.get_batch_samples

    def looks(self: Loop, *args: Any) -> Any:
        contexts.extend(p.__class__.__name__ for p in multiprocessing.active_children())
        return load_of(self, *args)

    monkeypatch.setattr(Loop, "get_batch_samples", looks)
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "training_step", dies)
        with pytest.raises(_Killed):
            go(tiny_llava, tmp_path / "shared", samples, workers=1)
    shared = go(tiny_llava, tmp_path / "shared", samples, workers=1)
    texts = [e["text"] for e in EventTail(tmp_path / "shared").read() if e["kind"] == "status"]
    assert "resumed at step 3" in texts
    assert set(contexts) == {"_Process"}  # before and after the stop
    assert all(torch.equal(alone[name], value) for name, value in shared.items())


def test_an_error_in_a_worker_is_the_same_error_with_its_line(
    tiny_llava: Path, tmp_path: Path, samples: list[Located], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Loop.get_train_dataloader

    def breaks(self: Loop) -> Any:
        Path(samples[7].sample.images[0]).write_bytes(b"broken")
        return real(self)

    monkeypatch.setattr(Loop, "get_train_dataloader", breaks)
    with pytest.raises(DataError) as error:
        go(tiny_llava, tmp_path / "run", samples, workers=1)
    assert error.value.where == "data.jsonl:8"
    assert "DataLoader" not in str(error.value)


@pytest.mark.slow
def test_samples_that_fit_are_encoded_once_by_workers_and_then_need_none(
    tiny_llava: Path, samples: list[Located]
) -> None:
    encoder = Encoder(load(ModelSection(id=str(tiny_llava))).processor)
    alone, shared = (Features(samples, encoder, workers=count) for count in (0, 2))
    assert shared.lengths() == alone.lengths()
    assert shared.complete and Stream(shared, range(10)).workers == 0
    for index in range(10):
        assert all(torch.equal(alone[index][name], value) for name, value in shared[index].items())


def test_what_is_on_disk_is_not_encoded_again(
    tiny_llava: Path, tmp_path: Path, samples: list[Located], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    real = Encoder.training

    def training(self: Encoder, sample: Sample) -> Any:
        encoded.append(sample.id)
        return real(self, sample)

    monkeypatch.setattr(Encoder, "training", training)
    alone = go(tiny_llava, tmp_path / "alone", samples, workers=0)
    without = len(encoded)
    encoded.clear()
    cached = go(tiny_llava, tmp_path / "disk", samples, workers=0, disk_cache_gib=1.0)
    assert len(encoded) <= 2 * len(samples) < without  # once to measure, once to write
    assert all(torch.equal(alone[name], value) for name, value in cached.items())
    assert not (tmp_path / "disk" / ".features").exists()


def test_a_signal_to_the_whole_group_does_not_end_the_workers() -> None:
    items = in_order(Rows(), 1)
    worker = next(items)[0]
    os.kill(worker, signal.SIGINT)
    os.kill(worker, signal.SIGTERM)
    assert [pid for pid, _ in items] == [worker] * (len(Rows()) - 1)


def test_small_work_starts_no_workers() -> None:
    assert worker_count("auto", 1.0) == 0
    assert worker_count("auto", 3600.0) >= 1
    assert worker_count(3, 0.0) == 3


def test_the_sample_used_longest_ago_leaves_the_cache_first() -> None:
    cache, shared = Cache(100), torch.zeros(10, dtype=torch.uint8)
    for index in range(3):
        cache.put(index, {"own": torch.zeros(30, dtype=torch.uint8), "image": shared})
    assert cache.bytes == 100
    assert cache.get(0) is not None
    cache.put(3, {"own": torch.zeros(30, dtype=torch.uint8)})
    assert [cache.get(i) is not None for i in range(4)] == [True, False, True, True]
    assert cache.bytes == 100


def test_workers_import_little_and_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = (
        "from kore.training.workers import in_order\n"
        "from tests.rows import Rows\n"
        "rows = in_order(Rows(), 1)\n"
        "print(*next(rows), flush=True)\n"
        "import time; time.sleep(60)\n"
    )
    program = tmp_path / "program.py"  # without a guard
    program.write_text(code, encoding="utf-8")
    with subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker, heavy = parent.stdout.readline().split()
        assert heavy == "False"
        assert psutil.pid_exists(int(worker))
        parent.kill()
    until = time.monotonic() + 20
    while psutil.pid_exists(int(worker)) and time.monotonic() < until:
        time.sleep(0.2)
    assert not psutil.pid_exists(int(worker))
