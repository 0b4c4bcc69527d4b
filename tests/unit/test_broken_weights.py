"""Broken, incomplete or foreign models and adapters are refused by name, never loaded and never a crash."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from kore.adapters import lora as adapter
from kore.adapters.lora_state import WEIGHTS, read_low_rank
from kore.config.resolve import ModelSection
from kore.errors import DataError
from kore.methods.load_adapter import load_adapter
from kore.models.families import language_linears
from kore.models.load import load
from kore.models.offload import open_skeleton
from kore.nullspace.weight_provider import Weights
from tests.cli.command import kore

SINGLE = "model.safetensors"


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def drop(part: str) -> Callable[[Path], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for key in [k for k in tensors if part in k]:
            del tensors[key]

    return lambda folder: rewrite(folder / SINGLE, change)


def spoil(part: str, value: float) -> Callable[[Path], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        next(v for k, v in tensors.items() if part in k).view(-1)[-1] = value

    return lambda folder: rewrite(folder / SINGLE, change)


def shorten(folder: Path) -> None:
    data = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(data[:-100])


def pointer(path: Path) -> None:
    path.write_text(f"version https://git-lfs.example/spec/v1\noid sha256:{'0' * 64}\nsize 123\n")


def index_of_two(folder: Path) -> None:
    (folder / SINGLE).rename(folder / "model-00001-of-00002.safetensors")
    names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def no_images(folder: Path) -> None:
    (folder / "processor_config.json").unlink()


def wider(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 80
    (folder / "config.json").write_text(json.dumps(config))


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing layer": (drop("language_model.model.layers.1."), "9 missing weights, first model.language"),
    "missing vision": (drop("vision_tower.embeddings.class"), "1 missing weights, first model.vision_tower"),
    "unexpected": (
        lambda folder: rewrite(folder / SINGLE, lambda t: t.update(stray=torch.zeros(1))),
        "1 unexpected weights, first stray",
    ),
    "nan": (spoil("layers.1.mlp.up_proj", float("nan")), "NaN or infinity in 1 tensors, first model.lang"),
    "infinity": (spoil("multi_modal_projector", float("-inf")), "NaN or infinity in 1 tensors"),
    "truncated": (shorten, "truncated: "),
    "empty": (lambda folder: (folder / SINGLE).write_bytes(b""), "truncated, or not a safetensors file"),
    "pointer": (lambda folder: pointer(folder / SINGLE), "Git LFS pointer"),
    "pickle": (lambda folder: (folder / SINGLE).rename(folder / "pytorch_model.bin"), "a pickle"),
    "missing file": (index_of_two, "1 of 2 weight files are missing, first model-00002-of-00002"),
    "other sizes": (wider, "cannot load the model"),
    "no template": (lambda folder: (folder / "chat_template.jinja").unlink(), "no chat template"),
    "no image processor": (no_images, "image processor|processor"),
    "no configuration": (lambda folder: (folder / "config.json").write_text("{}"), "cannot load"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_base_is_refused_with_its_file_and_a_remedy(
    kind: str, tiny_llava: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_llava, tmp_path / "m"))
    harm, message = BROKEN[kind]
    harm(folder)
    with pytest.raises(DataError, match=message) as caught:
        load(ModelSection(id=str(folder)))
    assert str(caught.value.where).startswith(str(folder)) and caught.value.hint


@pytest.mark.parametrize(
    "kind", ["missing layer", "missing vision", "nan", "infinity", "truncated", "pointer"]
)
def test_a_broken_base_that_stays_on_disk_is_refused_too(kind: str, tiny_llava: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_llava, tmp_path / "m"))
    BROKEN[kind][0](folder)
    with pytest.raises(DataError):
        bring(open_skeleton(ModelSection(id=str(folder)))[1])


def bring(weights: Weights) -> None:
    with weights.outside():
        pass
    for index in (0, 1):
        with weights.layer(index):
            pass


def saved(base: Path, out: Path) -> Path:
    backbone = load(ModelSection(id=str(base)))
    a = {n: torch.randn(2, m.in_features) for n, m in language_linears(backbone.model).items()}
    model = adapter.attach(backbone.model, backbone.family, rank=2, a=a)
    adapter.save(model, out, {"base": backbone.fingerprint, "model": str(base), "frozen_a": True})
    return out


def foreign(config: peft.PeftConfig) -> Callable[[Path, Path], None]:
    def write(base: Path, folder: Path) -> None:
        facts = (folder / "kore.json").read_text()
        shutil.rmtree(folder)
        peft.get_peft_model(load(ModelSection(id=str(base))).model, config).save_pretrained(folder)
        (folder / "kore.json").write_text(facts)

    return write


def harmed(change: Callable[[Path], Any]) -> Callable[[Path, Path], None]:
    return lambda base, folder: change(folder / WEIGHTS)


def spoil_factor(path: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        next(iter(tensors.values())).view(-1)[0] = float("inf")

    rewrite(path, change)


def other_rank(path: Path) -> None:
    config = json.loads((path.parent / "adapter_config.json").read_text())
    (path.parent / "adapter_config.json").write_text(json.dumps(config | {"r": 3}))


PARTS = ["q_proj", "v_proj"]
FOREIGN: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "IA3": (foreign(peft.IA3Config(target_modules=PARTS, feedforward_modules=[])), "type IA3"),
    "DoRA": (foreign(peft.LoraConfig(target_modules=PARTS, use_dora=True)), "type DoRA"),
    "VeRA": (foreign(peft.VeraConfig(target_modules=["q_proj"], r=2)), "type VERA"),
    "pickle": (harmed(lambda path: path.rename(path.with_name("adapter_model.bin"))), "a pickle"),
    "infinity": (harmed(spoil_factor), "NaN or infinity in 1 tensors"),
    "truncated": (harmed(lambda path: path.write_bytes(path.read_bytes()[:-8])), "truncated"),
    "pointer": (harmed(pointer), "Git LFS pointer"),
    "other rank": (harmed(other_rank), "cannot load the adapter: .*size mismatch"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_an_adapter_that_cannot_be_used_is_refused_by_name(
    kind: str, tiny_llava: Path, tmp_path: Path
) -> None:
    folder = saved(tiny_llava, tmp_path / "a")
    harm, message = FOREIGN[kind]
    harm(tiny_llava, folder)
    with pytest.raises(DataError, match=message) as caught:
        load_adapter(load(ModelSection(id=str(tiny_llava))), folder)
    assert str(caught.value.where).startswith(str(folder)) and caught.value.hint
    if kind != "other rank":
        with pytest.raises(DataError, match=message):
            read_low_rank(folder)


def test_commands_end_with_a_message_and_not_with_a_traceback(tiny_llava: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_llava, tmp_path / "m"))
    drop("language_model.model.layers.1.")(base)
    done = kore("chat", base, "--once", "Peru?")
    assert done.returncode == 3 and "9 missing weights" in done.stderr and "bug" not in done.stderr
    folder = saved(tiny_llava, tmp_path / "a")
    FOREIGN["IA3"][0](tiny_llava, folder)
    done = kore("export", folder, "--to", "merged", "-o", tmp_path / "out")
    assert done.returncode == 3 and "an adapter of type IA3" in done.stderr and "bug" not in done.stderr
    assert not (tmp_path / "out").exists()
