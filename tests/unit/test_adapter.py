"""The adapter: exactly the identity at first, A frozen whatever PEFT does, strict on loading."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from kore.adapters import lora as adapter
from kore.config.resolve import ModelSection
from kore.errors import DataError
from kore.evaluation.runner import generation
from kore.methods.load_adapter import load_adapter
from kore.models import generate
from kore.models.adapter_off import adapter_off
from kore.models.families import language_linears
from kore.models.generate import Engine, Prompt
from kore.models.load import Backbone, load


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
        with adapter_off(backbone.model):
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
    load_adapter(again, tmp_path / "a")
    with torch.no_grad():
        assert torch.equal(again.model(input_ids=ids).logits, expected)
    assert not any(p.requires_grad for p in again.model.parameters())


def test_an_adapter_of_another_base_is_refused(tiny_llava: Path, tmp_path: Path) -> None:
    backbone = with_adapter(tiny_llava)
    adapter.save(backbone.model, tmp_path / "a", {"base": "something-else", "frozen_a": True})
    with pytest.raises(DataError, match="belongs to base something-else"):
        load_adapter(load(ModelSection(id=str(tiny_llava))), tmp_path / "a")


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


def noisy(folder: Path) -> Backbone:
    """A backbone whose adapter changes its answers."""
    torch.manual_seed(5)
    backbone = with_adapter(folder)
    with torch.no_grad():
        for name, p in backbone.model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=1.0)
    return backbone


def test_closing_a_stream_ends_its_thread_and_the_next_answer_is_the_adapters(tiny_llava: Path) -> None:
    engine = Engine(noisy(tiny_llava), max_new_tokens=400)
    engine.backbone.model.generation_config.eos_token_id = None  # answers never end by themselves
    ask = Prompt.ask("What is the capital?")
    short = Engine(engine.backbone, max_new_tokens=8)
    tuned, base = short.answer([ask])[0], short.answer([ask], adapter=False)[0]
    assert tuned != base
    before = threading.active_count()
    for close in (True, False):
        pieces = engine.stream(ask, adapter=False)
        next(pieces)
        assert threading.active_count() == before + 1
        if close:
            pieces.close()
        del pieces
        assert threading.active_count() == before
        assert short.answer([ask])[0] == tuned
    assert short.answer([ask], adapter=False)[0] == base


def test_an_answer_waits_for_a_stream_that_is_still_open(tiny_llava: Path) -> None:
    engine = Engine(noisy(tiny_llava), max_new_tokens=60)
    engine.backbone.model.generation_config.eos_token_id = None
    ask = Prompt.ask("What is the capital?")
    tuned, base = engine.answer([ask])[0], engine.answer([ask], adapter=False)[0]
    pieces = engine.stream(ask, adapter=False)
    first = next(pieces)
    assert engine.answer([ask])[0] == tuned
    assert (first + "".join(pieces)).strip() == base


LEFT_OPEN = """
import sys
from kore.models.generate import Engine, Prompt
from kore.models.load import load
from kore.config.resolve import ModelSection
engine = Engine(load(ModelSection(id=sys.argv[1])), max_new_tokens=100_000)
engine.backbone.model.generation_config.eos_token_id = None
pieces = engine.stream(Prompt.ask("Peru"))
next(pieces)
"""


def test_a_program_that_leaves_a_stream_open_ends_well(tiny_llava: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEFT_OPEN, tiny_llava], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


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
            load_adapter(load(ModelSection(id=str(tiny_llava))), tmp_path)


def test_the_base_is_put_in_place_once_for_all_batches(
    tiny_llava: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, times = with_adapter(tiny_llava), []
    off = generate.adapter_off
    monkeypatch.setattr(generate, "adapter_off", lambda model: times.append(1) or off(model))
    prompts = [Prompt.ask(word) for word in ("Peru", "Lima", "Is this a flag?")]
    Engine(backbone, batch=1, max_new_tokens=2).answer(prompts, adapter=False)
    assert len(times) == 1


def test_what_a_models_folder_says_of_generation_bends_neither_greedy_nor_a_temperature(
    tiny_llava: Path,
) -> None:
    backbone = load(ModelSection(id=str(tiny_llava)))
    engine = Engine(backbone, max_new_tokens=12)
    ask = [Prompt.ask("Peru Lima Peru Lima")]
    plain = engine.answer(ask)
    assert generate.overruled(backbone.model) == {} and "overruled" not in generation(engine)
    own = {"repetition_penalty": 9.0, "no_repeat_ngram_size": 1, "num_beams": 2}
    for name, value in {**own, "top_k": 1, "top_p": 0.001}.items():
        setattr(backbone.model.generation_config, name, value)
    assert engine.answer(ask) == plain
    assert generation(engine)["overruled"] == own  # such answers of before are not taken for these
    torch.manual_seed(0)
    said = {engine.answer(ask, temperature=3.0)[0] for _ in range(4)}
    assert len(said) > 1
