"""The loss on answer tokens alone is the model's own loss, with the same gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from kore.models.answer_loss import AnswerLoss, LossPath
from kore.models.families import model_class
from tests.models.families import CASES

SETTINGS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama, tied": {"tie_word_embeddings": True},
    "llava": {},
    "qwen2_5_vl": {},
    "gemma3_text": {"final_logit_softcapping": 3.0},
    "cohere": {"logit_scale": 0.25},
    "mixtral": {"output_router_logits": True, "router_aux_loss_coef": 0.5},
}
PATHS = {"gemma3_text": LossPath.SELECTED, "cohere": LossPath.SELECTED}


def build(name: str) -> Any:
    from transformers import CohereConfig

    torch.manual_seed(0)
    case = name.split(",")[0]
    if case == "cohere":
        config: Any = CohereConfig(
            vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
        )
    else:
        config = CASES[case].parts()[1]
    config.update(SETTINGS[name])
    model = model_class(config).from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
    return model.train()


def batch(vocabulary: int) -> dict[str, Tensor]:
    """Two rows of unlike length, the second with two answers, padded."""
    ids = torch.randint(60, vocabulary, (2, 17), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, 12:] = 0
    labels = ids.clone()
    labels[0, :7] = labels[0, 12:] = labels[1, :3] = labels[1, 8:12] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def step(model: Any, inputs: dict[str, Any]) -> tuple[float, dict[str, Tensor]]:
    model.zero_grad()
    loss = model(**inputs).loss
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return float(loss.detach()), gradients


@pytest.mark.parametrize("adapted", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("name", SETTINGS)
def test_loss_and_gradients_are_the_models_own(name: str, adapted: bool) -> None:
    model = build(name)
    if adapted:  # on the head too, unless the head is tied to the embedding
        tied = getattr(model.config.get_text_config(), "tie_word_embeddings", False)
        targets = ["q_proj", "up_proj" if tied else "lm_head"]
        model = get_peft_model(model, LoraConfig(target_modules=targets, init_lora_weights=False))
    text = model.config.get_text_config()
    inputs = {**batch(min(99, text.vocab_size)), "num_items_in_batch": torch.tensor(19)}
    expected, gradients = step(model, inputs)
    answers = AnswerLoss(model, chunk=4 * text.vocab_size * 4)  # four rows in a chunk
    assert answers.path is PATHS.get(name, LossPath.CHUNKED)
    with answers.active(inputs["labels"]):
        loss, own = step(model, inputs)
    assert loss == pytest.approx(expected, rel=1e-6)
    assert own.keys() == gradients.keys()
    for parameter, gradient in gradients.items():
        assert torch.allclose(own[parameter], gradient, rtol=1e-4, atol=1e-6), parameter
    assert step(model, inputs)[0] == pytest.approx(expected, rel=1e-7)  # nothing is left behind


def test_under_gradient_checkpointing_and_with_an_image() -> None:
    model = build("llava")
    model.gradient_checkpointing_enable({"use_reentrant": False})
    inputs: dict[str, Any] = batch(60 + 20)
    image = model.config.image_token_id
    inputs["input_ids"][0, 1:5] = image
    inputs["pixel_values"] = torch.randn(1, 3, 32, 32)
    expected, gradients = step(model, inputs)
    with AnswerLoss(model, chunk=4 * model.config.text_config.vocab_size).active(inputs["labels"]):
        loss, own = step(model, inputs)
    assert loss == pytest.approx(expected, rel=1e-6)
    assert all(torch.allclose(own[n], g, rtol=1e-4, atol=1e-6) for n, g in gradients.items())


def test_logits_are_kept_for_answer_tokens() -> None:
    for name in ("llama", "gemma3_text"):
        model = build(name)
        inputs = batch(90)
        logits = model(**inputs).logits
        answers = AnswerLoss(model, keep_logits=True)
        answers.forward(model, inputs)
        assert answers.path is LossPath.SELECTED
        assert answers.logits is not None
        assert torch.allclose(answers.logits, logits[:, :-1][inputs["labels"][:, 1:] != -100], atol=1e-5)


def test_a_batch_without_answers_adds_nothing() -> None:
    model = build("llama")
    inputs: dict[str, Any] = batch(90)
    inputs["labels"].fill_(-100)
    with AnswerLoss(model).active(inputs["labels"]):
        loss, gradients = step(model, {**inputs, "num_items_in_batch": 5})
    assert loss == 0.0
    assert all(not g.any() for g in gradients.values())


def test_a_model_with_a_loss_of_its_own_keeps_it() -> None:
    class Squared(type(build("llama"))):  # type: ignore[misc]
        def forward(self, labels: Any = None, **inputs: Any) -> Any:
            outputs = super().forward(**{k: v for k, v in inputs.items() if k != "num_items_in_batch"})
            outputs["loss"] = outputs["logits"].square().mean()
            return outputs

    model = build("llama")
    model.__class__ = Squared
    inputs = batch(90)
    expected = float(model(**inputs).loss.detach())
    answers = AnswerLoss(model, keep_logits=True)
    assert answers.path is LossPath.FULL
    outputs = answers.forward(model, inputs)
    assert float(outputs.loss.detach()) == expected
    assert answers.logits is not None


class _Peak(torch.utils._python_dispatch.TorchDispatchMode):
    """The largest tensor that any operation returns, in elements."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in torch.utils._pytree.tree_leaves(result):
            if isinstance(value, Tensor):
                self.largest = max(self.largest, value.numel())
        return result


def test_no_tensor_grows_with_prompt_times_vocabulary() -> None:
    torch.manual_seed(0)
    config = CASES["llama"].parts()[1]
    config.update({"vocab_size": 20_000, "tie_word_embeddings": True})
    model = model_class(config).from_config(config)
    nn.Module.requires_grad_(model.get_input_embeddings(), False)
    ids = torch.randint(5, 20_000, (1, 400))
    labels = ids.clone()
    labels[:, :300] = -100
    chunk = 4 * 20_000 * 10
    answers = AnswerLoss(model, chunk=chunk)
    with _Peak() as peak, answers.active(labels):
        model(input_ids=ids, labels=labels).loss.backward()
    assert peak.largest == max(chunk // 4, 20_000 * config.hidden_size)  # a chunk, or the head's weight
