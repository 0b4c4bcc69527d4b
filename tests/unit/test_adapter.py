"""The adapter: exactly the identity at first, A frozen whatever PEFT does, strict on loading."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kore.errors import DataError
from kore.models import adapter
from kore.models.families import language_linears
from kore.models.generate import Engine, Prompt
from kore.models.load import Backbone, load
from kore.profile import ModelSection


def with_adapter(folder: Path, rank: int = 4) -> Backbone:
    backbone = load(ModelSection(id=str(folder)))
    linears = language_linears(backbone.model)
    a = {name: torch.randn(rank, m.in_features) for name, m in linears.items()}
    backbone.model = adapter.attach(backbone.model, backbone.family, rank=rank, a=a)
    return backbone


def thawed(model: torch.nn.Module) -> list[str]:
    return [n for n, p in model.named_parameters() if p.requires_grad and "lora_A" in n]


def test_a_fresh_adapter_changes_nothing(tiny_llava: Path) -> None:
    backbone = with_adapter(tiny_llava)
    ids = torch.randint(3, 300, (2, 7))
    with torch.no_grad():
        on = backbone.model(input_ids=ids).logits
        with adapter.adapter_off(backbone.model):
            off = backbone.model(input_ids=ids).logits
    assert torch.equal(on, off)


def test_a_stays_frozen_through_every_call_that_thaws_it_in_peft(tiny_llava: Path) -> None:
    backbone = with_adapter(tiny_llava)
    model = backbone.model
    model.set_adapter("default")
    assert not thawed(model)
    with model.disable_adapter():
        pass
    assert not thawed(model)
    model.train()
    assert not thawed(model)
    adapter.assert_frozen(model)


def test_a_thawed_a_and_a_frozen_b_are_refused(tiny_llava: Path) -> None:
    model = with_adapter(tiny_llava).model
    own = dict(model.named_parameters())
    a, b = (next(name for name in own if part in name) for part in ("lora_A", "lora_B"))
    own[a].requires_grad_(True)
    with pytest.raises(AssertionError, match=f"1 frozen A matrices became trainable, first {a}"):
        adapter.assert_frozen(model)
    own[a].requires_grad_(False)
    for name in own:
        own[name].requires_grad_(False)
    with pytest.raises(AssertionError, match="no lora_B is trainable"):
        adapter.assert_frozen(model)
    own[b].requires_grad_(True)
    adapter.assert_frozen(model)


def test_saving_and_loading_gives_the_same_answers(tiny_llava: Path, tmp_path: Path) -> None:
    backbone = with_adapter(tiny_llava)
    with torch.no_grad():
        for name, p in backbone.model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.2)
    ids = torch.randint(3, 300, (2, 7))
    with torch.no_grad():
        expected = backbone.model(input_ids=ids).logits
    adapter.save(backbone.model, tmp_path / "a", {"base": backbone.fingerprint, "frozen_a": True})
    again = load(ModelSection(id=str(tiny_llava)))
    adapter.load_adapter(again, tmp_path / "a", trainable=True)
    with torch.no_grad():
        assert torch.equal(again.model(input_ids=ids).logits, expected)
    adapter.assert_frozen(again.model)


def test_an_adapter_of_another_base_is_refused(tiny_llava: Path, tmp_path: Path) -> None:
    backbone = with_adapter(tiny_llava)
    adapter.save(backbone.model, tmp_path / "a", {"base": "something-else", "frozen_a": True})
    with pytest.raises(DataError, match="belongs to base something-else"):
        adapter.load_adapter(load(ModelSection(id=str(tiny_llava))), tmp_path / "a")


def test_batched_and_single_answers_agree_and_the_adapter_can_be_off(tiny_llava: Path, picture: Path) -> None:
    backbone = with_adapter(tiny_llava)
    prompts = [
        Prompt.ask("What is the capital?", [picture]),
        Prompt.ask("Peru"),
        Prompt.ask("Is this a flag? Yes", [picture]),
    ]
    batched = Engine(backbone, batch=3, max_new_tokens=6).answer(prompts)
    single = Engine(backbone, batch=1, max_new_tokens=6).answer(prompts, adapter=False)
    assert batched == single
    assert "".join(Engine(backbone, max_new_tokens=6).stream(prompts[0])).strip() == batched[0]


def test_a_missing_or_unexpected_key_is_an_error(tiny_llava: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    backbone = with_adapter(tiny_llava)
    adapter.save(backbone.model, tmp_path, {"base": backbone.fingerprint, "frozen_a": True})
    path = tmp_path / "adapter_model.safetensors"
    whole = load_file(path)
    first = min(whole)
    for weights in ({k: v for k, v in whole.items() if k != first}, {**whole, "stray": torch.zeros(1)}):
        save_file(weights, path)
        with pytest.raises(DataError, match="adapter and model do not fit"):
            adapter.load_adapter(load(ModelSection(id=str(tiny_llava))), tmp_path)
