"""How an export is checked: its logits against those of the adapter that it was made from."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kore.adapters.lora import load_lora
from kore.errors import DataError
from kore.models.adapter_off import adapter_off
from kore.models.lineage import Lineage
from kore.models.load import Backbone, load
from kore.models.load_errors import loading
from kore.models.processing import Encoder
from kore.models.special_tokens import is_text_only

if TYPE_CHECKING:
    from kore.config.resolve import ModelSection
    from kore.models.generate import Prompt

ROUNDING = 1e-5  # of the logits' norm in float32: a smaller change cannot be measured
BAD_MERGE = 0.1  # of what the adapter changes: more than this lost or added is no merge


@dataclass(frozen=True)
class Check:
    """How well an export answers as the adapter does.

    Attributes:
        prompts: how many were compared.
        moved: largest |logit| change that the adapter makes to the base.
        error: largest |logit| difference between the export and the adapter.
        relative: norm of that difference over the norm of the change; infinite for 0 / 0 is 0.
        agree: share of positions whose most likely token is the same.
    """

    prompts: int
    moved: float
    error: float
    relative: float
    agree: float


@dataclass(frozen=True)
class Reference:
    """An adapter's base, and the logits of both. The model itself is not kept: an export and its source
    are never in memory together.

    Attributes:
        section: how the base is loaded.
        path: the base's folder.
        lineage: the base's.
        select_layer: the vision tower's layer that the adapter was trained with, where the base's
            configuration names another.
        text_only: whether the model reads no images.
    """

    section: ModelSection
    path: Path
    lineage: Lineage
    select_layer: int | None
    text_only: bool
    prompts: Sequence[Prompt]
    with_adapter: Tensor
    without: Tensor

    @staticmethod
    def measure(
        adapter: Path,
        section: ModelSection,
        prompts: Sequence[Prompt],
        inspect: Callable[[Backbone], None] = lambda backbone: None,
    ) -> Reference:
        """Load base and adapter in float32 and compute their logits.

        Args:
            inspect: called with the loaded model, adapter on, before it is released.

        Raises:
            DataError: as `load` and `load_lora`.
        """
        section = section.model_copy(update={"dtype": "float32"})
        backbone = load(section)
        load_lora(backbone, adapter)
        with_adapter = logits(backbone, prompts)
        with adapter_off(backbone.model):
            without = logits(backbone, prompts)
        inspect(backbone)
        layer = backbone.reads.get("vision_select_layer")
        path, lineage = backbone.path, backbone.lineage
        text_only = is_text_only(backbone.processor)
        del backbone
        gc.collect()
        return Reference(section, path, lineage, layer, text_only, prompts, with_adapter, without)

    def check(self, what: str, base: Path, adapter: Path | None = None) -> Check:
        """Load an export with stock tools and compare it.

        Args:
            what: the export, for the error message.
            base: its model folder. adapter: its adapter folder, for stock PEFT.

        Raises:
            DataError: it does not answer as the adapter does.
        """
        # its own configuration decides which layer it reads, as for whoever loads it
        backbone = load(self.section.model_copy(update={"id": str(base), "vision_select_layer": None}))
        if adapter is not None:
            from peft import PeftModel

            with loading("adapter", adapter):
                backbone.model = PeftModel.from_pretrained(backbone.model, str(adapter)).eval()
        found = compare(logits(backbone, self.prompts), self.with_adapter, self.without, len(self.prompts))
        refuse_bad(found, what)
        return found


@torch.inference_mode()
def logits(backbone: Backbone, prompts: Sequence[Prompt]) -> Tensor:
    """Logits of every position of every prompt, one prompt at a time, (positions, vocabulary) float32."""
    encoder = Encoder(backbone.processor)
    found = []
    for prompt in prompts:
        inputs: dict[str, Any] = encoder.prompt(prompt.turns, prompt.images)
        batch = {
            k: v[None] if v.dim() == 1 and len(v) == len(inputs["input_ids"]) else v
            for k, v in inputs.items()
        }
        placed = {k: v.to(backbone.device) for k, v in batch.items()}
        found.append(backbone.model(**placed).logits[0].float().cpu())
    return torch.cat(found)


def compare(made: Tensor, adapter: Tensor, base: Tensor, prompts: int) -> Check:
    """How far `made` is from `adapter`, measured by how far `adapter` is from `base`."""
    error, moved = made - adapter, adapter - base
    size, lost, whole = float(moved.norm()), float(error.norm()), float(base.norm())
    if size > ROUNDING * whole:
        relative = lost / size
    else:  # an adapter that changes no more than rounding does
        relative = 0.0 if lost <= 10 * ROUNDING * whole else float("inf")
    agree = float((made.argmax(-1) == adapter.argmax(-1)).float().mean())
    return Check(prompts, float(moved.abs().max()), float(error.abs().max()), relative, agree)


def refuse_bad(check: Check, what: str) -> None:
    """Raise if an export does not answer as its adapter does.

    Raises:
        DataError: with the numbers.
    """
    if not check.relative <= BAD_MERGE:
        raise DataError(
            f"{what} does not answer as the adapter does: its logits differ by up to {check.error:.3g} where "
            f"the adapter changes them by up to {check.moved:.3g} ({check.relative:.0%} of the change)",
            hint="write it in float32 (--dtype float32), or serve the adapter unmerged",
        )
