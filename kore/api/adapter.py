"""KORE's constraint on a model that the caller trains: an ordinary PeftModel whose A is frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from kore.adapters import lora
from kore.adapters.param_budget import parse_count
from kore.api.settings import section
from kore.config.schema import AdapterSection
from kore.errors import DataError, UsageError
from kore.models.load import dense, fingerprint
from kore.models.loaded import (
    base_of,
    folder_of_loaded,
    loaded_family,
    named_linears,
    object_fingerprint,
)
from kore.nullspace.adapter_init import build, chosen_sites
from kore.nullspace.covariance import Covariance
from kore.progress import Progress, silent

if TYPE_CHECKING:
    from peft import PeftModel


def get_kore_model(
    model: nn.Module,
    covariance: Covariance | str | Path,
    rank: int | Literal["auto"] | None = None,
    budget: int | str | None = None,
    basis: Literal["paper", "contrast"] | None = None,
    *,
    new_covariance: Covariance | str | Path | None = None,
    contrast: float | None = None,
    keep: float | None = None,
    layers: str = "all",
    solver: Literal["auto", "exact", "fast"] = "auto",
    train_projector: bool = False,
    adapter_name: str | None = None,
    progress: Progress = silent,
) -> PeftModel:
    """Put a LoRA on the model whose A lies in the null space of the covariance and stays frozen; B = 0.

    The result is a PeftModel like any other: train, save, load and merge it as you would. After
    `PeftModel.from_pretrained(..., is_trainable=True)`, call `freeze_a`.

    Args:
        model: the model that the covariance was collected on; it is changed in place, as by
            PEFT's get_peft_model. A PeftModel keeps its active adapters: they stay active and are frozen.
        covariance: of what the model is to keep.
        rank: r, or "auto" (by the energy that the covariance leaves). Default: 16.
        budget: trainable parameters instead of a rank, e.g. "340M"; the projector's are counted.
        basis: "paper", the directions of least energy, or "contrast", those that new inputs use most.
        new_covariance, contrast: for basis "contrast": of the new samples, and how much they count (0 to 1).
        keep: share of the old inputs' energy to leave untouched, per input, instead of one rank.
        layers: "all", a range "0-3" or a list "0,5,7".
        train_projector: train the vision-to-language projector in full too.
        adapter_name: the adapter's name in PEFT. Default: "default", and "kore" beside another adapter.

    Raises:
        UsageError: arguments that do not go together, or are not valid.
        DataError: a covariance of another model, or a rank that does not fit; names both.
    """
    settings = _settings(rank, budget, basis, new_covariance, contrast, keep, layers, solver)
    old = covariance if isinstance(covariance, Covariance) else Covariance(covariance)
    new = new_covariance
    if new is not None and not isinstance(new, Covariance):
        new = Covariance(new)
    family = loaded_family(model)
    name = adapter_name or ("kore" if hasattr(model, "peft_config") else "default")
    if name in getattr(model, "peft_config", ()):
        raise UsageError(f"the model already has an adapter {name}", hint="give another adapter_name")
    _check_model(model, old)
    if train_projector:
        if family is None or family.projector is None:
            raise UsageError(f"{type(base_of(model)).__name__} has no projector to train")
        settings = _without_projector(settings, base_of(model).get_submodule(family.projector))
    linears = named_linears(model, [x for site in chosen_sites(old, settings) for x in site.linears])
    made = build(
        _Weights(linears, dict(base_of(model).named_modules())), old, settings, new=new, progress=progress
    )
    ranks = {linear: len(a) for linear, a in made.a.items()}
    result: PeftModel = lora.attach(
        model, family, rank=ranks, a=made.a, projector=train_projector, adapter=name
    )
    return result


@dataclass(frozen=True)
class _Weights:
    """The weights of a loaded model, with its active adapters added."""

    linears: Mapping[str, nn.Linear]
    modules: Mapping[str, Any]

    def weight(self, linear: str) -> Tensor:
        weight = dense(self.linears[linear])
        for active in getattr(self.modules[linear], "active_adapters", ()):
            delta = self.modules[linear].get_delta_weight(active)
            weight = weight.float() + delta.detach().to(weight.device)
        return weight

    def out_features(self, linear: str) -> int:
        return self.linears[linear].out_features


def freeze_a(model: Any, adapter_name: str | None = None) -> None:
    """Freeze A of a KORE adapter that PEFT has loaded for training, for all that PEFT does with it later.

    The one call after `PeftModel.from_pretrained(base, folder, is_trainable=True)`. A model of
    `get_kore_model` needs none.

    Args:
        adapter_name: which adapter; by default the active one.

    Raises:
        UsageError: there is no such LoRA, or its B is not trainable either.
    """
    if not hasattr(model, "peft_config"):
        raise UsageError("the model has no adapter", hint="make one with kore.get_kore_model")
    active = list(model.active_adapters)
    names = [adapter_name] if adapter_name else active
    for name in names:
        ours = [p for n, p in model.named_parameters() if f"lora_B.{name}." in n]
        if not ours:
            raise UsageError(f"the model has no LoRA adapter {name}")
        if name in active and not any(p.requires_grad for p in ours):
            raise UsageError(
                f"B of the adapter {name} is not trainable", hint="load it with is_trainable=True"
            )
        lora.freeze_a(model, name)


def _settings(
    rank: int | str | None,
    budget: int | str | None,
    basis: str | None,
    new_covariance: object,
    contrast: float | None,
    keep: float | None,
    layers: str,
    solver: str,
) -> AdapterSection:
    if rank not in (None, "auto") and (budget is not None or keep is not None):
        other = "budget" if budget is not None else "keep"
        raise UsageError(
            f"rank={rank} has no effect beside {other}, which chooses it", hint="give one of them"
        )
    if contrast is not None and basis is None:
        basis = "contrast"
    if (new_covariance is None) == (basis == "contrast"):
        raise UsageError("basis='contrast' and new_covariance go together", hint="give both, or neither")
    if contrast is not None and basis == "paper":
        raise UsageError("contrast has no effect on basis='paper'", hint="leave it out, or basis='contrast'")
    return section(
        AdapterSection,
        rank=rank,
        budget=None if budget is None else str(budget),
        basis=basis,
        contrast=contrast,
        keep=keep,
        layers=layers,
        solver=solver,
    )


def _check_model(model: nn.Module, covariance: Covariance) -> None:
    known = object_fingerprint(model)
    folder = folder_of_loaded(model)
    if covariance.model == known or (folder and covariance.model == fingerprint(folder)):
        return
    raise DataError(
        f"this covariance belongs to model {covariance.model}, the model here is {known}",
        where=str(covariance.folder),
        hint="collect it on this model, as it is now: kore.collect_covariance or kore.calibrate",
    )


def _without_projector(settings: AdapterSection, projector: nn.Module) -> AdapterSection:
    if settings.budget is None:
        return settings
    left = parse_count(settings.budget) - sum(p.numel() for p in projector.parameters())
    if left < 1:
        raise UsageError(f"budget={settings.budget}: the projector alone takes more")
    return settings.model_copy(update={"budget": str(left)})
