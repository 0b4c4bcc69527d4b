"""A 4- or 8-bit base is calibrated and adapted as it is. Runs where bitsandbytes is; its CPU kernels suffice."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from kore.adapters.lora import attach
from kore.config.resolve import AdapterSection, CalibrateSection, ModelSection
from kore.data.records import Sample
from kore.errors import DataError, MissingArtefact, UsageError
from kore.methods.base import require
from kore.methods.registry import make_method
from kore.models import load as loading
from kore.models.families import language_linears
from kore.models.load import dense, load
from kore.nullspace.adapter_init import build
from kore.nullspace.calibrate import calibrate
from tests.tiny import llava


def asked(words: int) -> Sample:
    turns = [{"from": "human", "value": "word " * words}, {"from": "gpt", "value": "Yes"}]
    return Sample.from_json({"id": str(words), "conversations": turns})


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_the_adapter_of_a_quantised_base_is_made_from_its_own_weights_and_leaves_them_alone(
    bits: str, tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    folder = llava(tmp_path / "model", width=64)
    backbone = load(ModelSection.model_validate({"id": str(folder), "quantisation": bits}))
    linears = language_linears(backbone.model, backbone.family)
    assert len(linears) == 14
    name, linear = next(iter(linears.items()))
    assert linear.weight.dtype in (torch.uint8, torch.int8)
    before = dense(linear)
    plain = load(ModelSection(id=str(folder))).model.get_submodule(name).weight.detach()
    assert 0 < float((dense(linear) - plain).norm()) < 0.2 * float(plain.norm())
    made = calibrate(backbone, [asked(n) for n in (20, 40, 60)], CalibrateSection(), tmp_path / "c")
    factors = build(backbone.model, made, AdapterSection(rank=4))
    basis = factors.a[name].double()
    projected = dense(linear).double() @ torch.linalg.pinv(basis) @ basis
    sizes = torch.linalg.svdvals(projected)[:4]
    assert torch.allclose(basis @ basis.T, torch.diag(sizes), atol=1e-5)
    ids = torch.randint(3, 300, (1, 7))
    with torch.no_grad():
        expected = backbone.model(input_ids=ids).logits
        model = attach(backbone.model, backbone.family, rank=4, a=factors.a)
        assert torch.equal(model(input_ids=ids).logits, expected)
    assert torch.equal(dense(model.get_submodule(f"base_model.model.{name}.base_layer")), before)


def test_without_bitsandbytes_the_error_names_it(tiny_llava: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name == "bitsandbytes" else found(name, *more),
    )
    with pytest.raises(MissingArtefact, match="needs bitsandbytes") as caught:
        load(ModelSection(id=str(tiny_llava), quantisation="4bit"))
    assert "kore-inject[gpu]" in str(caught.value.hint)


def test_four_bits_are_nf4_computed_in_the_models_type_on_this_processs_gpu(
    tiny_llava: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, asked = importlib.util.find_spec, {}
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: found("torch" if name == "bitsandbytes" else name, *more),
    )

    def look(folder: Path, **options: object) -> None:
        asked.update(options)
        raise OSError("seen")

    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", look)
    monkeypatch.setattr(loading, "pick_device", lambda wanted: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    with pytest.raises(DataError, match="seen"):
        load(ModelSection(id=str(tiny_llava), quantisation="4bit", dtype="bfloat16"))
    assert asked["device_map"] == {"": 3}
    config = asked["quantization_config"]
    assert (config.bnb_4bit_quant_type, config.bnb_4bit_compute_dtype) == ("nf4", torch.bfloat16)


@pytest.mark.parametrize("name", ["full", "ewc"])
def test_a_method_that_changes_the_bases_weights_refuses_a_quantised_one(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} does not train on a quantised base"):
        require(make_method(name), zero=0, factors=True, old=True, quantised=True)
    require(make_method("lora"), zero=0, factors=True, old=True, quantised=True)
