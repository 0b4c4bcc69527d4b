"""Cross entropy of the answer tokens alone, without the logits of every token.

A model's own forward pass computes logits for all tokens, (B, T, V), and then ignores most of them: prompt,
images, padding. While an `AnswerLoss` is active, the output head reads only the hidden states that predict an
answer token, and works on them in chunks that are recomputed in the backward pass. The rest of the forward
pass is the model's own, auxiliary losses included.

A model may do something to its logits (softcap, scale) or compute its loss by itself. A pass over a few
tokens finds that out beforehand, and such a model keeps its own code: on the logits of the answer tokens
where that gives its own loss, else on all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from torch.utils.checkpoint import checkpoint

from kore.models.families import plain_token
from kore.models.processing import IGNORED

CHUNK = 64 << 20  # bytes of float32 logits in one chunk
_PROBE = (2, 6)  # batch and tokens of the pass that compares losses


class LossPath(Enum):
    """How much of the logits a model computes in training."""

    CHUNKED = "answer tokens, in chunks"
    SELECTED = "answer tokens"
    FULL = "all tokens"


class Unsupported(Exception):
    """The model's forward pass does not follow the path."""


class AnswerLoss:
    """Computes a model's loss on its answer tokens.

    Args:
        model: a causal or image-text-to-text model of transformers, or a wrapper around one.
        keep_logits: keep the logits of the answer tokens for the caller; they are then not chunked.
        chunk: bytes of float32 logits in one chunk.

    Attributes:
        path: the path that gives this model's own loss.
        logits: of the answer tokens of the last pass, (n, V), with `keep_logits`.
    """

    def __init__(self, model: nn.Module, *, keep_logits: bool = False, chunk: int = CHUNK) -> None:
        self.keep_logits = keep_logits
        self.chunk = chunk
        self.logits: Tensor | None = None
        self._owner, self._head = _parts(model)
        paths = [LossPath.SELECTED] if keep_logits else [LossPath.CHUNKED, LossPath.SELECTED]
        self.path = LossPath.FULL
        if self._head is not None and _plain_loss(self._owner):
            self.path = self._first_equal(model, paths)

    @contextmanager
    def active(self, labels: Tensor) -> Iterator[None]:
        """Forward passes with these labels, (B, T), compute their loss on the answer tokens."""
        self.logits = None
        if self.path is LossPath.FULL:
            yield
            return
        call = _Call(self, labels)
        with _replaced(self._head, "forward", call.head), _replaced(self._owner, "_loss_function", call.loss):
            yield
        if not call.done:
            raise Unsupported("the model did not compute its loss with loss_function")

    def forward(self, model: Any, inputs: Mapping[str, Any]) -> Any:
        """The model's outputs for inputs with labels; `logits` holds those of the answer tokens."""
        with self.active(inputs["labels"]):
            outputs = model(**inputs)
        self.take(outputs, inputs["labels"])
        return outputs

    def take(self, outputs: Any, labels: Tensor) -> None:
        """Keep the answer tokens' logits of a pass that computed all of them."""
        if self.keep_logits and self.path is LossPath.FULL:
            self.logits = outputs["logits"][:, :-1][labels[:, 1:] != IGNORED]

    def rows(self, head: Any) -> int | None:
        """Hidden states in one chunk; None where chunks would leave processes waiting for each other."""
        if any(hasattr(p, "ds_id") for p in head.parameters()) and any(True for _ in head.children()):
            return None  # ZeRO-3 gathers a child's weights at every call, and all processes must call alike
        return max(1, self.chunk // (4 * int(self._owner.config.get_text_config().vocab_size)))

    def _first_equal(self, model: Any, paths: list[LossPath]) -> LossPath:
        """The first path on which a few text tokens get the loss of the model's own forward pass."""
        device = next(model.parameters()).device
        ids = torch.full(_PROBE, plain_token(self._owner.config), device=device)
        labels = torch.arange(ids.numel(), device=device).view(_PROBE)
        labels[0, :3] = labels[1, -1] = IGNORED
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
        training = model.training
        model.eval()
        try:
            with torch.no_grad():
                own = model(**inputs, num_items_in_batch=7).loss.float()
                tolerance = 1e-5 if next(self._head.parameters()).dtype == torch.float32 else 2e-2
                for self.path in paths:
                    if self._gives(own, model, {**inputs, "num_items_in_batch": 7}, tolerance):
                        return self.path
        except Exception:  # no pass over text alone: the model's own code is left as it is
            return LossPath.FULL
        finally:
            model.train(training)
            self.logits = None
        return LossPath.FULL

    def _gives(self, own: Tensor, model: Any, inputs: Mapping[str, Any], tolerance: float) -> bool:
        try:
            loss = self.forward(model, inputs).loss.float()
        except Exception:  # shapes that the model's own code cannot take, as well as Unsupported
            return False
        return torch.allclose(loss, own, rtol=tolerance, atol=0.0)


class _Call:
    """One forward pass: what takes the place of the output head and of the loss function."""

    def __init__(self, answers: AnswerLoss, labels: Tensor) -> None:
        self.answers = answers
        self.real = answers._head.forward
        self.targets = pad(labels, (0, 1), value=IGNORED)[:, 1:]
        self.result: Tensor | None = None
        self.version = 0
        self.done = False

    def head(self, hidden: Tensor) -> Tensor:
        """(B, T, d) -> the losses of the answer tokens, (1, n, 1); with SELECTED their logits, (1, n, V)."""
        if hidden.shape[:-1] != self.targets.shape:
            raise Unsupported("the head reads other tokens than the labels have")
        self.targets = self.targets.to(hidden.device)
        chosen = self.targets != IGNORED
        states, self.targets = hidden[chosen], self.targets[chosen]
        if self.answers.path is LossPath.CHUNKED:
            self.result = self._losses(states).view(1, -1, 1)
        else:
            self.result = self.real(states.unsqueeze(0))
        self.version = self.result._version
        return self.result

    def loss(
        self, logits: Tensor, labels: Tensor, vocab_size: int, num_items_in_batch: Any = None, **_: Any
    ) -> Tensor:
        """As transformers' ForCausalLMLoss."""
        if self.answers.path is LossPath.CHUNKED:
            if not self._unchanged(logits):
                raise Unsupported("the model changes its logits")
            losses = logits
        else:
            self.answers.logits = logits[0] if self.answers.keep_logits else None
            losses = cross_entropy(logits[0].float(), self.targets, reduction="none")
        self.done = True
        return losses.mean() if num_items_in_batch is None else losses.sum() / num_items_in_batch

    def _unchanged(self, logits: Tensor) -> bool:
        """Whether these are the losses that the head returned; ZeRO-3's hooks pass on a view of them."""
        result = self.result
        if result is None or result.shape != logits.shape:
            return False
        return result.data_ptr() == logits.data_ptr() and logits._version == self.version

    def _losses(self, states: Tensor) -> Tensor:
        """(n, d) -> (n,) cross entropies in float32."""
        rows = self.answers.rows(self.answers._head)
        if rows is None or len(states) <= rows:
            return self._chunk(states, self.targets)
        pairs = zip(torch.split(states, rows), torch.split(self.targets, rows), strict=True)
        return torch.cat([checkpoint(self._chunk, s, t, use_reentrant=False) for s, t in pairs])

    def _chunk(self, states: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(self.real(states).float(), targets, reduction="none")


def _parts(model: nn.Module) -> tuple[Any, Any]:
    """The model that computes the loss, and its output head; None for what it does not have."""
    from transformers import PreTrainedModel

    owner = next((m for m in model.modules() if isinstance(m, PreTrainedModel)), None)
    return owner, owner.get_output_embeddings() if owner is not None else None


def _plain_loss(owner: Any) -> bool:
    """Whether the model's loss function is the usual one."""
    from transformers.loss.loss_utils import ForCausalLMLoss

    return owner.loss_function is ForCausalLMLoss


@contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute of the instance inside the block."""
    before = module.__dict__.get(name)
    module.__dict__[name] = value
    try:
        yield
    finally:
        if before is None:
            del module.__dict__[name]
        else:
            module.__dict__[name] = before
