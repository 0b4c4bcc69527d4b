"""Covariances of models that the caller has loaded, over passes that the caller runs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

import kore
from kore.config.resolve import ModelSection
from kore.errors import DataError, UsageError
from kore.models.load import load
from kore.models.loaded import object_fingerprint
from tests.small import Mixer, causal_lm


def expected(linear: nn.Linear, rows: Tensor) -> Tensor:
    assert rows.shape[-1] == linear.in_features
    flat = rows.detach().flatten(0, -2).double()
    return flat.T @ flat


def matrix(covariance: kore.Covariance, linear: str) -> Tensor:
    return covariance.matrix(covariance.site_of(linear))


def test_a_hand_built_module_is_summed_at_each_distinct_input() -> None:
    model = Mixer()
    batches = [torch.randn(2, 5, 8) for _ in range(3)]
    made = kore.collect_covariance(model, lambda: [model(x) for x in batches])
    assert {s.linears for s in made.sites} == {
        *((f"blocks.{n}.left", f"blocks.{n}.right") for n in range(2)),
        *((f"blocks.{n}.out",) for n in range(2)),
        ("head",),
    }
    assert len({s.name for s in made.sites}) == 5
    assert torch.allclose(matrix(made, "blocks.0.left"), expected(model.blocks[0].left, torch.cat(batches)))
    assert {s.tokens for s in made.sites} == {30}
    narrow = kore.collect_covariance(model, lambda: model(batches[0]), target_modules=["left", "right"])
    assert [(s.name, s.layer) for s in narrow.sites] == [
        ("layers.0.left_right", 0),
        ("layers.1.left_right", 1),
    ]


def test_padded_positions_are_left_out_however_the_mask_is_passed() -> None:
    model = causal_lm()
    ids = torch.randint(3, 60, (2, 6))
    mask = torch.tensor([[1] * 6, [1, 1, 1, 0, 0, 0]])
    named = kore.collect_covariance(model, lambda: model(input_ids=ids, attention_mask=mask))
    placed = kore.collect_covariance(model, lambda: model(ids, mask))
    apart = kore.collect_covariance(model, lambda: [model(input_ids=ids[:1]), model(input_ids=ids[1:, :3])])
    everything = kore.collect_covariance(
        model, lambda: model(input_ids=ids, attention_mask=mask), mask_argument=None
    )
    assert [s.tokens for s in named.sites] == [9] * 8
    assert [s.tokens for s in everything.sites] == [12] * 8
    for site in named.sites:
        assert torch.equal(named.matrix(site), placed.matrix(site))
        assert torch.allclose(named.matrix(site), apart.matrix(site), rtol=1e-4, atol=1e-5)
    assert [s.site for s in named.sites] == ["qkv", "o", "gate_up", "down"] * 2


def test_generation_with_a_cache_is_counted_step_by_step() -> None:
    model = causal_lm()
    ids = torch.randint(3, 60, (1, 4))
    made = kore.collect_covariance(
        model,
        lambda: model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, min_new_tokens=3
        ),
    )
    assert {s.tokens for s in made.sites} == {6}


def test_a_peft_model_is_summed_under_the_names_of_its_base_and_with_its_adapter() -> None:
    model = causal_lm()
    ids = torch.randint(3, 60, (2, 6))
    plain = kore.collect_covariance(model, lambda: model(input_ids=ids))
    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    tuned = get_peft_model(model, config)
    made = kore.collect_covariance(tuned, lambda: tuned(input_ids=ids))
    assert [s.linears for s in made.sites] == [s.linears for s in plain.sites]
    first, last = made.sites[0], made.sites[-1]
    assert torch.equal(made.matrix(first), plain.matrix(first))
    assert not torch.allclose(made.matrix(last), plain.matrix(last))
    assert made.model != plain.model


def test_a_vision_language_models_vision_tower_is_left_alone(tiny_llava: Path) -> None:
    model = load(ModelSection(id=str(tiny_llava))).model
    made = kore.collect_covariance(model, lambda: model(input_ids=torch.randint(3, 60, (1, 5))))
    assert {s.site for s in made.sites} == {"qkv", "o", "gate_up", "down"}
    assert all("language_model" in linear for s in made.sites for linear in s.linears)


def test_dropout_is_off_while_the_model_runs_and_its_mode_is_as_before() -> None:
    model = Mixer(dropout=0.5).train()
    x = torch.randn(2, 5, 8)
    made = [kore.collect_covariance(model, lambda: model(x)) for _ in range(2)]
    assert torch.equal(matrix(made[0], "blocks.1.out"), matrix(made[1], "blocks.1.out"))
    assert all(module.training for module in model.modules())


def test_a_temporary_folder_goes_with_its_covariance_and_a_saved_one_stays(tmp_path: Path) -> None:
    model = Mixer()
    made = kore.collect_covariance(model, lambda: model(torch.randn(2, 5, 8)))
    folder = made.folder
    saved = made.save(tmp_path / "kept")
    assert torch.equal(saved.matrix(saved.sites[0]), made.matrix(made.sites[0]))
    del made
    assert not folder.exists()
    assert kore.Covariance(str(tmp_path / "kept")).model == object_fingerprint(model)
    with pytest.raises(UsageError, match="already holds a covariance"):
        kore.collect_covariance(model, lambda: model(torch.randn(2, 5, 8)), output=tmp_path / "kept")
    again = kore.collect_covariance(
        model, lambda: model(torch.randn(2, 5, 8)), output=tmp_path / "kept", restart=True
    )
    assert again.manifest.fingerprint != saved.manifest.fingerprint


def test_what_would_be_summed_wrongly_is_refused() -> None:
    model = Mixer()
    x = torch.randn(2, 5, 8)
    with pytest.raises(UsageError, match="matches \\['nothing'\\]"):
        kore.collect_covariance(model, lambda: model(x), target_modules=["nothing"])
    with pytest.raises(UsageError, match="never ran 7 of 7 linears"):
        kore.collect_covariance(model, lambda: None)
    with pytest.raises(DataError, match=r"blocks.0.left: it ran outside a forward pass"):
        kore.collect_covariance(model, lambda: model.blocks[0](x))
    with pytest.raises(DataError, match="nan or infinite"):
        kore.collect_covariance(model, lambda: model(x * float("nan")))
    causal = causal_lm()
    ids = torch.randint(3, 60, (2, 6))
    square = torch.zeros(2, 1, 6, 6)
    with pytest.raises(DataError, match="not a padding mask"):
        kore.collect_covariance(causal, lambda: causal(input_ids=ids, attention_mask=square))
    assert not model._forward_pre_hooks and not causal._forward_pre_hooks


def test_the_fingerprint_is_of_what_the_model_computes() -> None:
    first, second, other = causal_lm(), causal_lm(), causal_lm(seed=1)
    assert object_fingerprint(first) == object_fingerprint(second) != object_fingerprint(other)
    first.config.use_cache = False
    first.config._name_or_path = "elsewhere"
    assert object_fingerprint(first) == object_fingerprint(second)
    with torch.no_grad():
        second.model.layers[1].mlp.down_proj.weight[-1, -1] += 1
    assert object_fingerprint(first) != object_fingerprint(second)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_a_4_bit_model_is_summed_and_constrained(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    causal_lm(width=64).save_pretrained(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", quantization_config=BitsAndBytesConfig(load_in_4bit=True), device_map={"": "cpu"}
    )
    ids = torch.randint(3, 60, (2, 6))
    made = kore.collect_covariance(model, lambda: model(input_ids=ids))
    with torch.no_grad():
        before = model(input_ids=ids).logits
        after = kore.get_kore_model(model, made, rank=4)(input_ids=ids).logits
    assert torch.equal(before, after)
