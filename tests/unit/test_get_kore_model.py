"""The constraint on a model that the caller trains: exactly the base at first, and A frozen in every trainer."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

import kore
from kore.config.resolve import ModelSection
from kore.errors import DataError, UsageError
from kore.models.load import load
from tests.small import Mixer, causal_lm

IDS = torch.arange(3, 15).reshape(2, 6)


def constrained(model: Any = None, **options: Any) -> PeftModel:
    model = model or causal_lm()
    covariance = kore.collect_covariance(model, lambda: model(input_ids=IDS))
    return kore.get_kore_model(model, covariance, **{"rank": 4, **options})


def factor(model: nn.Module, kind: str, adapter: str = "default") -> dict[str, Tensor]:
    return {
        name: p.detach().clone() for name, p in model.named_parameters() if f"lora_{kind}.{adapter}." in name
    }


def same(before: dict[str, Tensor], after: dict[str, Tensor]) -> bool:
    return before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)


def trainable(model: nn.Module) -> set[str]:
    kinds = ("lora_A", "lora_B", "modules_to_save")
    named = [n for n, p in model.named_parameters() if p.requires_grad]
    return {next((k for k in kinds if k in n), n) for n in named}


@contextmanager
def only_b_is_trained(model: Any, adapter: str = "default") -> Iterator[None]:
    """What every way of training must leave as it was, and what it must change."""
    a, b = factor(model, "A", adapter), factor(model, "B", adapter)
    base = {n: p.detach().clone() for n, p in model.named_parameters() if "lora_" not in n}
    assert a and trainable(model) == {"lora_B"}
    yield
    assert same(a, factor(model, "A", adapter))
    assert not same(b, factor(model, "B", adapter))
    assert same(base, {n: p.detach() for n, p in model.named_parameters() if "lora_" not in n})


def loop(model: Any, steps: int = 2) -> None:
    """A plain PyTorch loop."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(input_ids=IDS).logits
    return out


def data() -> Dataset:
    return Dataset.from_dict({"input_ids": IDS.tolist(), "labels": IDS.tolist()})


def arguments(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "max_steps": 2,
        "learning_rate": 1e-2,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "save_strategy": "no",
        "dataloader_pin_memory": False,
        **more,
    }


def test_before_training_the_outputs_are_exactly_the_bases_and_a_lies_in_the_null_space() -> None:
    model = causal_lm()
    before = logits(model)
    covariance = kore.collect_covariance(model, lambda: model(input_ids=IDS))
    tuned = kore.get_kore_model(model, covariance, rank=4)
    assert isinstance(tuned, PeftModel)
    assert torch.equal(before, logits(tuned))
    for site in covariance.sites:
        c = covariance.matrix(site)
        for linear in site.linears:
            a = factor(tuned, "A")[f"base_model.model.{linear}.lora_A.default.weight"].double()
            moved = (a @ c @ a.T).trace() / a.square().sum()
            assert moved < 1e-3 * c.trace() / len(c)


def test_a_plain_loop_trains_b_alone() -> None:
    model = constrained()
    with only_b_is_trained(model.train()):
        loop(model)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_trains_b_alone(reentrant: bool) -> None:
    model = constrained()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    with only_b_is_trained(model.train()):
        loop(model)


def set_adapter(model: Any) -> None:
    model.set_adapter("default")


def disable_adapter(model: Any) -> None:
    with model.disable_adapter():
        logits(model)


def disable_and_enable_layers(model: Any) -> None:
    model.base_model.disable_adapter_layers()
    model.base_model.enable_adapter_layers()


def add_adapter(model: Any) -> None:
    model.add_adapter("other", LoraConfig(r=2, target_modules=["q_proj"]))
    model.set_adapter("other")
    assert trainable(model) == {"lora_A", "lora_B"}
    model.set_adapter("default")


def delete_adapter(model: Any) -> None:
    model.add_adapter("other", LoraConfig(r=2, target_modules=["q_proj"]))
    model.delete_adapter("other")


def set_requires_grad(model: Any) -> None:
    model.set_requires_grad("default", False)
    model.set_requires_grad("default", True)


def train_mode(model: Any) -> None:
    model.eval()
    model.train()


@pytest.mark.parametrize(
    "change",
    [
        set_adapter,
        disable_adapter,
        disable_and_enable_layers,
        add_adapter,
        delete_adapter,
        set_requires_grad,
        train_mode,
    ],
)
def test_a_stays_frozen_through_what_peft_does_to_adapters(change: Callable[[Any], None]) -> None:
    model = constrained()
    change(model)
    with only_b_is_trained(model):
        loop(model)


def test_a_loaded_adapter_is_trained_on_after_one_call(tmp_path: Path) -> None:
    model = constrained()
    loop(model)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(causal_lm(), tmp_path, is_trainable=True)
    assert torch.equal(logits(model), logits(loaded))
    assert trainable(loaded) == {"lora_A", "lora_B"}
    kore.freeze_a(loaded)
    loaded.set_adapter("default")
    disable_adapter(loaded)
    with only_b_is_trained(loaded):
        loop(loaded)
    with pytest.raises(UsageError, match="is not trainable"):
        kore.freeze_a(PeftModel.from_pretrained(causal_lm(), tmp_path))
    with pytest.raises(UsageError, match="no adapter"):
        kore.freeze_a(causal_lm())


def test_the_transformers_trainer_trains_b_alone(tmp_path: Path) -> None:
    model = constrained()
    options = arguments(tmp_path, gradient_checkpointing=True, save_strategy="steps", save_steps=1)
    trainer = Trainer(model, TrainingArguments(**options), train_dataset=data())
    with only_b_is_trained(model):
        trainer.train()
    end = factor(model, "B")
    again = constrained()
    with only_b_is_trained(again):
        Trainer(again, TrainingArguments(**options), train_dataset=data()).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-1")
        )
    assert all(torch.allclose(end[n], b, atol=1e-6) for n, b in factor(again, "B").items())


@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="trl is not installed")
def test_trls_sft_trainer_trains_b_alone(tmp_path: Path) -> None:
    from trl import SFTConfig, SFTTrainer

    from tests.tiny import tokenizer

    model = constrained(causal_lm(vocabulary=len(tokenizer())))
    trainer = SFTTrainer(
        model, SFTConfig(**arguments(tmp_path)), train_dataset=data(), processing_class=tokenizer()
    )
    with only_b_is_trained(model):
        trainer.train()


ZERO = """
import json, os, sys, torch
from transformers import Trainer, TrainingArguments
from tests.unit.test_get_kore_model import arguments, constrained, data, factor, same, trainable
torch.set_num_threads(1)
model = constrained()
a, b = factor(model, "A"), factor(model, "B")
config = {"zero_optimization": {"stage": 2}, "train_micro_batch_size_per_gpu": "auto", "train_batch_size": "auto"}
options = arguments(sys.argv[1], deepspeed=config, ddp_backend="gloo", optim="adamw_torch")
Trainer(model, TrainingArguments(**options), train_dataset=data()).train()
kept, changed = same(a, factor(model, "A")), not same(b, factor(model, "B"))
json.dump([kept, changed, sorted(trainable(model))], open(sys.argv[1] + "/told.json", "w"))
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")
def test_deepspeeds_zero_2_trains_b_alone(tmp_path: Path) -> None:
    alone = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29617",
        "DS_ACCELERATOR": "cpu",
        "PYTHONPATH": os.getcwd(),
    }
    done = subprocess.run(
        [sys.executable, "-c", ZERO, str(tmp_path)],
        env={**os.environ, **alone},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "told.json").read_text()) == [True, True, ["lora_B"]]


def test_a_hand_built_module_is_constrained_and_trained_by_its_own_loop() -> None:
    model = Mixer()
    x = torch.randn(4, 5, 8)
    before = model(x).detach()
    covariance = kore.collect_covariance(model, lambda: model(x[:1]), target_modules=["left", "right", "out"])
    tuned = kore.get_kore_model(model, covariance, keep=0.9)
    assert torch.equal(before, tuned(x).detach())
    ranks = {n: len(a) for n, a in factor(tuned, "A").items()}
    assert len(set(ranks.values())) > 1 and not any("head" in n for n in ranks)
    with only_b_is_trained(tuned):
        optimizer = torch.optim.SGD([p for p in tuned.parameters() if p.requires_grad], lr=0.1)
        (tuned(x) - 1).square().sum().backward()
        optimizer.step()


def test_ranks_are_each_linears_own_where_one_name_ends_another() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 12)
            self.inner = nn.ModuleDict({"fc": nn.Linear(12, 8)})

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inner["fc"](self.fc(x))
            return out

    model = Nested()
    x = torch.randn(1, 4, 6)
    covariance = kore.collect_covariance(model, lambda: model(x))
    tuned = kore.get_kore_model(model, covariance, rank="auto")
    ranks = {
        n.removeprefix("base_model.model.").partition(".lora")[0]: len(a)
        for n, a in factor(tuned, "A").items()
    }
    assert ranks["fc"] < ranks["inner.fc"]


def test_a_peft_model_keeps_its_adapter_active_and_frozen() -> None:
    from peft import get_peft_model

    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    model = get_peft_model(causal_lm(), config)
    before = logits(model)
    tuned = constrained(model)
    assert torch.equal(before, logits(tuned)) and tuned.active_adapters == ["default", "kore"]
    earlier = factor(tuned, "A") | factor(tuned, "B")
    disable_adapter(tuned)
    with only_b_is_trained(tuned, "kore"):
        loop(tuned)
    assert same(earlier, factor(tuned, "A") | factor(tuned, "B"))


def test_a_projector_is_trained_in_full_and_paid_from_the_budget(tiny_llava: Path) -> None:
    base = load(ModelSection(id=str(tiny_llava))).model
    covariance = kore.collect_covariance(base, lambda: base(input_ids=IDS))
    projector = sum(p.numel() for p in base.model.multi_modal_projector.parameters())
    model = kore.get_kore_model(base, covariance, budget=projector + 2000, train_projector=True)
    assert trainable(model) == {"lora_B", "modules_to_save"}
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert projector < count <= projector + 2000


def test_a_covariance_of_the_files_fits_the_model_that_was_loaded_from_them(
    tiny_llava: Path, tmp_path: Path
) -> None:
    from kore.config.resolve import CalibrateSection
    from kore.data.records import Sample
    from kore.nullspace.calibrate import calibrate

    backbone = load(ModelSection(id=str(tiny_llava)))
    turns = [{"from": "human", "value": "What is this?"}, {"from": "gpt", "value": "Peru"}]
    samples = [Sample.from_json({"id": "0", "conversations": turns})]
    calibrate(backbone, samples, CalibrateSection(), tmp_path / "c")
    assert kore.get_kore_model(backbone.model, tmp_path / "c", rank=2).peft_config["default"].r == 2


def test_the_contrast_basis_takes_new_inputs() -> None:
    model = causal_lm()
    old = kore.collect_covariance(model, lambda: model(input_ids=IDS))
    new = kore.collect_covariance(model, lambda: model(input_ids=IDS.flip(1) + 20))
    tuned = kore.get_kore_model(model, old, 4, basis="contrast", new_covariance=new, contrast=0.7)
    with only_b_is_trained(tuned):
        loop(tuned)


def test_what_does_not_go_together_is_refused() -> None:
    model = causal_lm()
    covariance = kore.collect_covariance(model, lambda: model(input_ids=IDS))
    with pytest.raises(DataError, match="belongs to model"):
        kore.get_kore_model(causal_lm(seed=1), covariance, rank=4)
    with pytest.raises(UsageError, match="rank=4 has no effect beside budget"):
        kore.get_kore_model(model, covariance, rank=4, budget="1M")
    with pytest.raises(UsageError, match="go together"):
        kore.get_kore_model(model, covariance, rank=4, basis="contrast")
    with pytest.raises(UsageError, match="rank='many'"):
        kore.get_kore_model(model, covariance, rank="many")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="rank 400 does not fit"):
        kore.get_kore_model(model, covariance, rank=400)
    with pytest.raises(UsageError, match="has no projector"):
        kore.get_kore_model(model, covariance, rank=4, train_projector=True)
    tuned = kore.get_kore_model(model, covariance, rank=4)
    with pytest.raises(UsageError, match="already has an adapter default"):
        kore.get_kore_model(tuned, covariance, rank=4, adapter_name="default")
