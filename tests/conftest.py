"""Every test runs away from the developer's own settings, on one thread."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No KORE_* variable, key or home of the developer reaches a test; runs go to a folder of its own."""
    for name in list(os.environ):
        if name.startswith("KORE_") or name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("KORE_HOME", str(tmp_path / "runs"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def tiny_llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny LLaVA."""
    import torch

    from tests.tiny import llava

    torch.set_num_threads(1)
    return llava(tmp_path_factory.mktemp("models") / "llava")


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Qwen2.5-VL."""
    import torch

    from tests.tiny import qwen

    torch.set_num_threads(1)
    return qwen(tmp_path_factory.mktemp("models") / "qwen")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A small picture."""
    from PIL import Image

    path = tmp_path / "picture.png"
    Image.effect_noise((40, 30), 64).convert("RGB").save(path)
    return path
