"""transformers' Trainer with what KORE needs in it: penalties, a stop at non-finite numbers, our files.

Everything else (accumulation, mixed precision, DeepSpeed, optimiser, schedule, random state) is theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from kore.distributed import on_first_rank
from kore.errors import DataError
from kore.methods.base import Method
from kore.models.answer_loss import AnswerLoss
from kore.models.processing import IGNORED
from kore.training import checkpoint_io as weights
from kore.training.features import checked
from kore.training.workers import CONTEXT, start


class NonFinite(DataError):
    """The loss or its gradient stopped being a number."""


@dataclass
class Tally:
    """What one optimiser step did so far.

    Attributes:
        loss: what is minimised: cross entropy per token of the step plus `penalty`, over micro-batches.
        penalty: the method's part of it; None where the method has none.
        tokens: tokens seen, padding left out.
        samples: samples seen.
        grad_norm: before clipping.
        lr: of the adapter, during the step.
    """

    loss: float = 0.0
    penalty: float | None = None
    tokens: int = 0
    samples: int = 0
    grad_norm: float | None = None
    lr: float = 0.0


class Loop(Trainer):
    """The training loop of one run.

    Args:
        method: whose penalty is added and whose parameters are trained.
        projector_lr: learning rate of what lies outside the language model.
        forward: context of every forward pass.
        fused: run AdamW as one fused kernel.
        ids: names of the samples in the order they are drawn, for the message at a bad loss.
    """

    def __init__(
        self,
        *,
        method: Method,
        projector: str | None,
        projector_lr: float | None,
        ids: list[str],
        forward: Callable[[], AbstractContextManager[object]] = nullcontext,
        fused: bool = False,
        **rest: Any,
    ) -> None:
        self.method = method
        self.projector = projector
        self.projector_lr = projector_lr
        self.ids = ids
        self.forward = forward
        self.fused = fused
        self.tally = Tally()
        self.micro = 0
        super().__init__(**rest)
        # Qwen2-VL and 2.5-VL declare the opposite, yet hand the token count to their loss; without it every
        # forward pass is averaged on its own, and the step's loss depends on how the batch is split
        self.model_accepts_loss_kwargs = True
        with forward():
            self.answers = AnswerLoss(self._trained(), keep_logits=method.traits.reads_logits)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW over what the method trains; the projector at its own rate."""
        if self.optimizer is None:
            trained: Any = model or self.model
            groups: dict[float, list[Any]] = {}
            for name, parameter in trained.named_parameters():
                if parameter.requires_grad:
                    outside = self.projector is not None and self.projector in name
                    own = self.projector_lr if outside else None
                    rate = self.args.learning_rate if own is None else own
                    groups.setdefault(rate, []).append(parameter)
            # the adapter's rate first: it is the one that is reported
            rates = sorted(groups, key=lambda r: r != self.args.learning_rate)
            self.optimizer = torch.optim.AdamW(
                [{"params": groups[rate], "lr": rate} for rate in rates],
                lr=self.args.learning_rate,
                betas=(self.args.adam_beta1, self.args.adam_beta2),
                eps=self.args.adam_epsilon,
                weight_decay=self.args.weight_decay,
                fused=self.fused or None,
            )
        return self.optimizer

    def get_train_dataloader(self) -> Any:
        """The loader; its workers start without the program that started this process."""
        loader: Any = super().get_train_dataloader()
        if loader.num_workers:
            base = getattr(loader, "base_dataloader", loader)
            base.multiprocessing_context = CONTEXT
            base.worker_init_fn = partial(start, also=base.worker_init_fn)
        return loader

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """The micro-batches of a step; an error of a worker is raised here, as it was there."""
        return super().get_batch_samples(map(checked, epoch_iterator), num_batches, device)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Cross entropy per token of the global batch, plus the method's penalty."""
        with self.forward(), self.answers.active(inputs["labels"]):
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        self.answers.take(outputs, inputs["labels"])
        # each micro-batch of each device adds its share, so the penalty's sum is its mean
        penalty = self.method.penalty(self.model, inputs, self.answers.logits)
        self.answers.logits = None
        if penalty is not None:
            share = penalty / self.current_gradient_accumulation_steps
            loss = loss + share
            self.tally.penalty = (self.tally.penalty or 0.0) + float(share.detach())
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """One micro-batch; stops the run before a bad loss reaches the weights."""
        real = (inputs["labels"] != IGNORED).any(dim=1)  # an empty place has no label
        self.tally.tokens += int(inputs["attention_mask"][real].sum())
        self.tally.samples += int(real.sum())
        loss = super().training_step(model, inputs, num_items_in_batch)
        value = float(loss)
        if not math.isfinite(value):
            raise self._stopped("loss", value)
        self.tally.loss += value
        self.micro += 1
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        value = float(norm) if norm is not None else None
        if value is not None and not math.isfinite(value):
            raise self._stopped("gradient norm", value)
        self.tally.grad_norm = value
        optimizer: Any = self.optimizer
        self.tally.lr = float(optimizer.param_groups[0]["lr"])
        return norm

    def _stopped(self, what: str, value: float) -> NonFinite:
        step = self.state.global_step + 1
        size = self.args.per_device_train_batch_size
        width = size * self.args.world_size
        start = (step - 1) * width * self.args.gradient_accumulation_steps
        if what == "loss":
            start += (
                self.micro % self.args.gradient_accumulation_steps * width + self.args.process_index * size
            )
            names = self.ids[start : start + size]
        else:
            names = self.ids[start : start + width * self.args.gradient_accumulation_steps]
        names = [n for n in names if n]
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        return NonFinite(
            f"{what} is {value} at step {step}; samples: {shown}",
            hint="look at these samples, lower train.lr, or use float32; the last good checkpoint is kept",
        )

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: counting walks over all parameters at every step."""
        return 0

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Weights and the method's state, for resuming; the adapter itself is written at the end."""
        folder = Path(str(output_dir or self.args.output_dir))
        weights.write(self._trained(), folder)
        if state := self.method.state():
            on_first_rank(lambda: weights.save(state, folder / "method.safetensors"))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        weights.read(self._trained(), Path(resume_from_checkpoint))
        self.restore_method(Path(resume_from_checkpoint))

    def _trained(self) -> torch.nn.Module:
        assert isinstance(self.model, torch.nn.Module)
        return self.model

    def restore_method(self, folder: Path) -> None:
        """Give the method its state back."""
        from safetensors.torch import load_file

        path = folder / "method.safetensors"
        self.method.restore(load_file(path) if path.is_file() else {}, self.model)
        self.method.check(self.model)
