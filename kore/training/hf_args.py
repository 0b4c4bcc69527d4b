"""From a profile's [train] to the arguments of transformers' Trainer and DeepSpeed's configuration."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.distributed import TIMEOUT
from kore.errors import MissingArtefact, UsageError

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from kore.config.resolve import TrainSection
    from kore.training.probes import Probing

ADAM_BETAS = (0.9, 0.999)
ADAM_EPSILON = 1e-8
# settings that do not change what is learned from given samples; on_long changes the samples themselves
NO_EFFECT = (
    "save_steps",
    "probe_steps",
    "probe_share",
    "keep",
    "on_alarm",
    "sinks",
    "on_long",
    "workers",
    "cache_gib",
    "disk_cache_gib",
    "tf32",
    "fused",
)


@dataclass(frozen=True)
class Split:
    """How a global batch is made up.

    Attributes:
        micro: samples per device and forward pass.
        accumulate: forward passes per optimiser step.
        world: devices.
        empty: places that stay without a sample, where the batch does not divide over the devices.
    """

    micro: int
    accumulate: int
    world: int
    empty: int = 0

    @property
    def places(self) -> int:
        """Places for samples in an optimiser step."""
        return self.micro * self.accumulate * self.world

    @property
    def batch(self) -> int:
        """Samples per optimiser step."""
        return self.places - self.empty

    def __str__(self) -> str:
        devices = f"{self.world} device{'s' * (self.world != 1)}"
        left = f", {self.empty} of them empty" if self.empty else ""
        return f"{self.micro} x {self.accumulate} accumulated x {devices}{left}"


def check_sinks(sinks: Sequence[str]) -> None:
    """Refuse sinks whose package is not here.

    Raises:
        MissingArtefact: names the package.
    """
    for name in sinks:
        if importlib.util.find_spec(name) is None:
            told = f"train.sinks names {name}, which is not installed"
            raise MissingArtefact(told, hint=f"pip install {name}")


def check_settings(settings: TrainSection, probes: Probing | None) -> None:
    """Refuse settings that do not go together, or not with what is here.

    Raises:
        UsageError: with the reason.
    """
    if settings.keep is not None and probes and not probes.enabled:
        raise UsageError(
            "train.keep watches old probes, and train.probe_share = 0 asks none",
            hint="--set train.probe_share=0.02, or --set train.probe_steps=N",
        )
    if settings.keep is not None and not (probes and any(p.kind == "old" for p in probes.probes)):
        raise UsageError(
            "train.keep watches old probes, and there are none", hint="--old FILE or --probes FILE"
        )
    if settings.thaw_a and settings.weight_decay:
        raise UsageError("train.thaw_a needs train.weight_decay = 0: decay would move what is held")
    check_sinks(settings.sinks)


@contextmanager
def sinks_in(folder: Path) -> Iterator[None]:
    """TensorBoard's files beside the event log, not among the checkpoints."""
    name = "TENSORBOARD_LOGGING_DIR"
    before = os.environ.get(name)
    os.environ[name] = before or str(folder / "tensorboard")
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


def split(section: TrainSection, world: int) -> Split:
    """Divide the global batch over `world` devices, in the largest forward passes that divide evenly.

    Where it does not divide, as 54 over 4 devices, a few places of the last forward pass are filled with a
    sample whose labels are all masked: it adds nothing to the loss, and the step is that of the batch asked
    for.
    """
    share = -(-section.batch // world)
    wanted = share if section.micro_batch in (None, "auto") else min(int(section.micro_batch), share)
    micro = max(d for d in range(1, wanted + 1) if share % d == 0)
    return Split(micro, share // micro, world, share * world - section.batch)


def deepspeed_config(section: TrainSection, parts: Split, *, bf16: bool) -> dict[str, Any]:
    """DeepSpeed's configuration for the section's ZeRO stage.

    Every number is written out, so that nothing depends on DeepSpeed's defaults or on the launcher.
    """
    zero: dict[str, Any] = {
        "stage": section.zero,
        "overlap_comm": True,
        "contiguous_gradients": True,
        "reduce_bucket_size": 5e8,
    }
    if section.zero == 3:
        zero |= {
            "stage3_prefetch_bucket_size": 5e7,
            "stage3_param_persistence_threshold": 1e6,
            "stage3_max_live_parameters": 1e9,
            "stage3_max_reuse_distance": 1e9,
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    config = {
        "train_micro_batch_size_per_gpu": parts.micro,
        "gradient_accumulation_steps": parts.accumulate,
        "train_batch_size": parts.places,
        "gradient_clipping": section.max_grad_norm,
        "bf16": {"enabled": bf16},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 1 << 30,
        "wall_clock_breakdown": False,
    }
    return {**config, **section.deepspeed}


def arguments(
    section: TrainSection,
    folder: Path,
    *,
    steps: int,
    parts: Split,
    cpu: bool,
    bf16: bool,
    checkpointing: bool = False,
    workers: int = 0,
) -> TrainingArguments:
    """transformers' TrainingArguments; saving, logging and evaluation are our callbacks' business."""
    import torch
    from transformers import TrainingArguments

    pinned = not cpu and torch.cuda.is_available()
    made = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=parts.micro,
        gradient_accumulation_steps=parts.accumulate,
        learning_rate=section.lr,
        lr_scheduler_type=section.schedule if section.schedule != "constant" else "constant_with_warmup",
        warmup_steps=round(section.warmup * steps),
        weight_decay=section.weight_decay,
        adam_beta1=ADAM_BETAS[0],
        adam_beta2=ADAM_BETAS[1],
        adam_epsilon=ADAM_EPSILON,
        max_grad_norm=section.max_grad_norm,
        bf16=bf16,
        use_cpu=cpu,
        activation_checkpointing=checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if checkpointing else None,
        seed=section.seed,
        train_sampling_strategy="sequential",
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="steps" if section.sinks else "no",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=list(section.sinks) or "none",
        run_name=folder.parent.name,
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_num_workers=workers,
        dataloader_prefetch_factor=4 if workers else None,
        dataloader_pin_memory=pinned,
        accelerator_config={"non_blocking": pinned},
        ddp_find_unused_parameters=False,
        ddp_backend="gloo" if cpu and parts.world > 1 else None,
        ddp_timeout=int(TIMEOUT.total_seconds()),
        deepspeed=deepspeed_config(section, parts, bf16=bf16) if section.zero else None,
    )
    # one process trains on one device: with several in sight, theirs would copy the model onto all of them
    # at every step, which multiplies the batch and leaves the methods' hooks behind
    made._n_gpu = min(made.n_gpu, 1)
    return made
