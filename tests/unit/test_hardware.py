"""Choices by hardware, and the settings that override them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kore.config.resolve import TrainSection
from kore.errors import UsageError
from kore.models.load import pick_device
from kore.nullspace.accumulator import Accumulator
from kore.training.hardware import Hardware, choose, tf32

GIB = 1 << 30
MODEL = SimpleNamespace(dtype=torch.bfloat16, config=SimpleNamespace(_attn_implementation="sdpa"))


def present(patch: pytest.MonkeyPatch, *, cuda: bool, mps: bool) -> None:
    patch.setattr(torch.cuda, "is_available", lambda: cuda)
    patch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU")
    properties = SimpleNamespace(total_memory=80 * GIB)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    return torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_cuda_then_mps_then_the_cpu(
    cuda: bool, mps: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    present(monkeypatch, cuda=cuda, mps=mps)
    assert pick_device("auto").type == expected


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_absent_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    present(monkeypatch, cuda=False, mps=False)
    with pytest.raises(UsageError, match=f"model.device is {name}"):
        pick_device(name)


def test_covariances_are_summed_on_the_cpu_where_the_device_has_no_float64() -> None:
    sums = Accumulator(4, device="mps")
    sums.add(torch.ones(3, 4))
    assert sums.packed().tolist() == [3.0] * 10


def test_a_recent_gpu_gets_tf32_and_a_fused_optimiser(gpu: torch.device) -> None:
    found = choose(MODEL, gpu, TrainSection(), 10 * GIB)
    assert found == Hardware("A GPU", "bfloat16", "sdpa", tf32=True, fused=True)
    assert str(found) == "A GPU: bfloat16, sdpa attention, TF32 on, fused AdamW, no gradient checkpointing"
    assert not choose(MODEL, gpu, TrainSection(zero=2), 10 * GIB).fused


def test_gradient_checkpointing_only_where_the_estimate_needs_it(gpu: torch.device) -> None:
    assert choose(MODEL, gpu, TrainSection(), 79 * GIB).checkpointing
    assert not choose(MODEL, gpu, TrainSection(), 60 * GIB).checkpointing


def test_settings_override_the_choices(gpu: torch.device) -> None:
    off: dict[str, Any] = {"tf32": False, "fused": False, "gradient_checkpointing": False}
    found = choose(MODEL, gpu, TrainSection(**off), 79 * GIB)
    assert (found.tf32, found.fused, found.checkpointing) == (False, False, False)
    assert choose(MODEL, gpu, TrainSection(gradient_checkpointing=True), GIB).checkpointing


def test_a_cpu_gets_none_of_them() -> None:
    found = choose(MODEL, torch.device("cpu"), TrainSection(), 10**15)
    assert str(found) == "cpu: bfloat16, sdpa attention, TF32 off, AdamW, no gradient checkpointing"


def test_tf32_ends_with_the_training() -> None:
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    with tf32(True):
        assert matmul.allow_tf32
    assert matmul.allow_tf32 == before
