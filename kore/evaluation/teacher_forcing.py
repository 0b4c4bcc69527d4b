"""Measurements along given text, without generation: per-token loss, and KL divergence from the base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kore.data.records import Sample
from kore.data.task import Task
from kore.errors import DataError
from kore.evaluation.agreement import AgreementSuite
from kore.evaluation.text_loss import OldText
from kore.evaluation.types import Answers
from kore.models.adapter_off import adapter_off
from kore.models.collate import collate
from kore.models.generate import Engine
from kore.models.processing import IGNORED

WINDOW = 1024
"""Longest piece of a plain text that the model reads at once, in tokens."""


def token_losses(
    engine: Engine, texts: Sequence[OldText], adapter: bool, on_done: Callable[[int, float, int], None]
) -> None:
    """Measure each text's mean cross-entropy, in nats a token.

    Args:
        adapter: False measures the untouched base.
        on_done: called with index, loss and number of tokens as soon as a text is measured.

    Raises:
        DataError: a text of a single token, a broken image.
    """
    model = engine.backbone.model
    training = model.training
    model.eval()
    try:
        with torch.inference_mode(), nullcontext() if adapter else adapter_off(model):
            for index, text in enumerate(texts):
                total, tokens = 0.0, 0
                for inputs, labels in _passes(engine, text.content):
                    logits = model(**{k: engine._place(v) for k, v in inputs.items()}).logits[
                        0, :-1
                    ]  # (T-1, V)
                    targets = labels[1:].to(logits.device)  # (T-1,)
                    scored = targets != IGNORED
                    total += cross_entropy(logits[scored].float(), targets[scored], reduction="sum").item()
                    tokens += int(scored.sum())
                if not tokens:
                    raise DataError("too short: a single token has no loss", where=text.where)
                on_done(index, total / tokens, tokens)
    finally:
        model.train(training)


def _passes(engine: Engine, content: Sample | str) -> list[tuple[dict[str, Tensor], Tensor]]:
    """Inputs of batch size 1 with their labels (T,); a plain text is cut into windows."""
    if isinstance(content, Sample):
        inputs = collate([engine.encoder.training(content)], engine.encoder.pad_id)
        return [(inputs, inputs.pop("labels")[0])]
    tokenizer = engine.encoder.tokenizer
    encoded = dict(tokenizer(content, return_tensors="pt", split_special_tokens=True))
    config = engine.backbone.model.config.get_text_config()
    size = min(WINDOW, getattr(config, "max_position_embeddings", WINDOW))
    pieces = []
    for start in range(0, encoded["input_ids"].shape[1], size):
        piece = {key: value[:, start : start + size] for key, value in encoded.items()}
        if piece["input_ids"].shape[1] > 1:
            pieces.append((piece, piece["input_ids"][0]))
    return pieces


def divergences(engine: Engine, suite: AgreementSuite, base: Answers) -> dict[str, float]:
    """Mean KL(base || tuned) per token, in nats, along the base's own answer to each prompt.

    One forward pass with the adapter off and one with it on, in the model's own precision; the
    distributions are compared in float32.
    """
    divergence: dict[str, float] = {}
    model, encoder = engine.backbone.model, engine.encoder
    answered = [(task, base[task.id][0]) for task in suite.tasks() if base.get(task.id)]
    for start in range(0, len(answered), engine.batch):
        chosen = answered[start : start + engine.batch]
        rows = [encoder.training(_sample(task, answer)) for task, answer in chosen]
        inputs = {k: engine._place(v) for k, v in collate(rows, encoder.pad_id, side="right").items()}
        labels = inputs.pop("labels")
        with torch.inference_mode():
            after = model(**inputs).logits
            with adapter_off(model):
                before = model(**inputs).logits
        for (task, _), row in zip(chosen, _kl(before, after, labels), strict=True):
            divergence[task.id] = row
    return divergence


def _kl(before: Tensor, after: Tensor, labels: Tensor) -> list[float]:
    """(N, T, V) logits twice and (N, T) labels -> N mean divergences over the answer's tokens."""
    rows = []
    for p, q, label in zip(before, after, labels, strict=True):
        chosen = (label[1:] != IGNORED).nonzero().squeeze(-1)  # position t predicts token t + 1
        log_p = torch.log_softmax(p[chosen].float(), dim=-1)
        log_q = torch.log_softmax(q[chosen].float(), dim=-1)
        rows.append(float((log_p.exp() * (log_p - log_q)).sum(-1).mean()))
    return rows


def _sample(task: Task, answer: str) -> Sample:
    turn = task.turns[0]
    conversation = [{"from": "human", "value": turn.text}, {"from": "gpt", "value": answer}]
    images = [image.path for image in turn.images] or None
    return Sample.model_validate({"id": task.id, "image": images, "conversations": conversation})
