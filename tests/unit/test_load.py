"""What names a model: its folder's fingerprint, and how its inputs are read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kore.config.resolve import CalibrateSection, ModelSection
from kore.data.records import Sample
from kore.errors import DataError, MissingArtefact, UsageError
from kore.models import load as loading
from kore.models.lineage import Lineage
from kore.models.load import fingerprint, load
from kore.nullspace.calibrate import calibrate
from kore.nullspace.combine import combine
from kore.workflows.run_factors import check_model


def folder_of(folder: Path, middle: float, *, lineage: str | None = None) -> Path:
    """A model folder whose file begins and ends with the same MiB whatever `middle` is."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    same = torch.zeros(300_000)
    tensors = {"a": same, "b": torch.full((2000,), middle), "c": same.clone()}
    save_file(tensors, folder / "model.safetensors")
    if lineage is not None:
        Lineage(lineage).then("adapter").write(folder)
    return folder


def test_two_merges_of_one_large_base_are_two_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_WHOLE", 1 << 20)
    first, second = folder_of(tmp_path / "a", 1.0), folder_of(tmp_path / "b", 2.0)
    assert first.joinpath("model.safetensors").stat().st_size > 2 << 20
    merged = folder_of(tmp_path / "c", 1.0, lineage="base")
    prints = [fingerprint(folder) for folder in (first, second, merged)]
    assert len(set(prints)) == 3
    assert fingerprint(folder_of(tmp_path / "d", 1.0)) == prints[0]
    (first / "model.safetensors").write_bytes(b"\xff" * (3 << 20))  # no safetensors: still has a name
    assert fingerprint(first) not in prints


def test_the_fingerprint_of_a_small_model_hashes_it_whole() -> None:
    assert fingerprint(loading.embedded_base()) == "778751d2be1121bf"


def test_weights_that_are_a_pickle_are_not_read(tiny_llava: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(tiny_llava, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match="safetensors"):
        load(ModelSection(id=str(folder)))


def test_a_name_beside_folders_that_are_here_is_no_name_of_a_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(MissingArtefact, match="nothing here: runs/nope"):
        load(ModelSection(id="runs/nope"))


def asked(words: int) -> Sample:
    turns = [{"from": "human", "value": "word " * words}, {"from": "gpt", "value": "Yes"}]
    return Sample.from_json({"id": str(words), "conversations": turns})


def test_a_covariance_of_inputs_that_were_read_otherwise_is_refused(tiny_llava: Path, tmp_path: Path) -> None:
    plain = ModelSection(id=str(tiny_llava))
    own, other = load(plain), load(plain.model_copy(update={"vision_select_layer": -2}))
    same = load(plain.model_copy(update={"vision_select_layer": -1}))
    assert (own.reads, other.reads, same.reads) == ({}, {"vision_select_layer": -2}, {})
    samples = [asked(n) for n in (2, 4)]
    first = calibrate(own, samples, CalibrateSection(), tmp_path / "a")
    assert "reads" not in first.manifest.settings
    with pytest.raises(UsageError, match=r"reads\.vision_select_layer"):
        calibrate(other, samples, CalibrateSection(), first.folder)
    second = calibrate(other, samples, CalibrateSection(), tmp_path / "b")
    check_model(first, same)
    check_model(second, other)
    with pytest.raises(DataError, match="vision_select_layer=-2, here they are read with the model's own"):
        check_model(second, own)
    with pytest.raises(DataError, match="vision_select_layer=-2"):
        combine([first.folder, second.folder], tmp_path / "sum")
    third = calibrate(other, samples[:1], CalibrateSection(), tmp_path / "c")
    check_model(combine([second.folder, third.folder], tmp_path / "two"), other)
