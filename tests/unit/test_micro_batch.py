"""The micro-batch is found from the estimate, halved on out-of-memory, and remembered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from kore.config.resolve import ModelSection, TrainSection
from kore.data.records import Sample
from kore.errors import DataError
from kore.methods.registry import make_method
from kore.models.answer_loss import AnswerLoss
from kore.models.load import load
from kore.training.hf_args import Split
from kore.training.run import Work, prepare


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    Image.effect_noise((40, 30), 64).convert("RGB").save(tmp_path / "0.png")
    turns = [{"from": "human", "value": "<image>\nWhere?"}, {"from": "gpt", "value": "Lima"}]
    record = {"image": str(tmp_path / "0.png"), "conversations": turns}
    return [Sample.model_validate({"id": f"s{i}", **record}) for i in range(12)]


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """Micro-batches that were tried; those above three samples run out of memory."""
    sizes: list[int] = []
    real = AnswerLoss.forward

    def forward(self: AnswerLoss, model: Any, inputs: Any) -> Any:
        if "pixel_values" in inputs:
            sizes.append(len(inputs["labels"]))
            if len(inputs["labels"]) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(self, model, inputs)

    monkeypatch.setattr(AnswerLoss, "forward", forward)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return sizes


def fitted(base: Path, samples: list[Sample], **more: Any) -> Work:
    section = TrainSection(method="lora", batch=12, micro_batch="auto", **more)
    work = prepare(load(ModelSection(id=str(base))), samples, section, make_method("lora"), rank=4)
    work.attach()
    state = torch.random.get_rng_state()
    work.fit_micro_batch()
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(p.grad is None for p in work.backbone.model.parameters())
    return work


def test_the_micro_batch_is_halved_on_out_of_memory_and_remembered(
    tiny_llava: Path, samples: list[Sample], tried: list[int]
) -> None:
    parts = fitted(tiny_llava, samples).parts
    assert tried == [12, 6, 3]
    assert (parts.micro, parts.accumulate, parts.batch) == (3, 4, 12)
    assert fitted(tiny_llava, samples).parts == parts
    assert tried == [12, 6, 3]
    fitted(tiny_llava, samples, projector=1e-3)  # needs other memory
    assert tried == [12, 6, 3] * 2


def test_the_estimate_is_the_start(
    tiny_llava: Path, samples: list[Sample], tried: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    section = TrainSection(method="lora", batch=12, micro_batch="auto")
    work = prepare(load(ModelSection(id=str(tiny_llava))), samples, section, make_method("lora"), rank=4)
    work.attach()
    four = work.plan(Split(4, 3, 1))
    room = int(sum(four.memory.values()) / 0.85) + 1
    monkeypatch.setattr("kore.training.micro_batch.memory_of", lambda device: room)
    work.fit_micro_batch()
    assert tried == [4, 2]


def test_one_sample_that_does_not_fit_is_an_error(
    tiny_llava: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(self: Work, parts: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Work, "_attempt", fails)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(DataError, match="out of memory with one sample"):
        fitted(tiny_llava, samples)
