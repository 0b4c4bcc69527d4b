"""The one interface of all training methods: what is trained, on which extra data, with which loss.

A method gets plain tensors and samples; it knows nothing of covariances, trainers or run folders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from kore.adapters.param_budget import kore_count, lora_rank
from kore.errors import ProfileError, UsageError
from kore.models.families import language_linears

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kore.data.records import Sample
    from kore.models.load import Backbone
    from kore.models.processing import Encoder


class MethodSettings(BaseModel):
    """Settings of one method: the profile's ``[method.NAME]``."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


@dataclass(frozen=True)
class Traits:
    """What a method allows; shown by the documentation, enforced before training.

    Attributes:
        zero: DeepSpeed ZeRO stages it runs under (0 is plain data parallel).
        mergeable: whether the result can be folded into the base's weights.
        exportable: whether the result is a plain PEFT folder that other tools load.
        resumable: whether an interrupted run ends bit for bit as an uninterrupted one.
        quantised: whether it trains on a 4- or 8-bit base.
        reads_logits: whether its penalty needs the logits of the answer tokens.
        why: the reason for each no.
    """

    zero: tuple[int, ...] = (0, 1, 2, 3)
    mergeable: bool = True
    exportable: bool = True
    resumable: bool = True
    quantised: bool = True
    needs_factors: bool = False
    needs_old: bool = False
    reads_logits: bool = False
    why: str = ""


@dataclass
class Setup:
    """What a method may use when it takes hold of a model.

    Attributes:
        backbone: the model; `Method.attach` replaces `backbone.model`.
        rank: KORE's rank, or one per linear: the trainable budget of every low-rank method is counted
            from it.
        factors: linear's full name -> frozen A (r, d_in), or None.
        projector: whether the projector is trained too.
        old: retention samples.
        forward: context in which a forward pass with the adapter on must run.
    """

    backbone: Backbone
    encoder: Encoder
    rank: int | Mapping[str, int] = 16
    factors: Mapping[str, Tensor] | None = None
    projector: bool = False
    old: Sequence[Sample] = ()
    batch: int = 8
    seed: int = 0
    linears: dict[str, nn.Linear] = field(default_factory=dict)
    forward: Callable[[], AbstractContextManager[object]] = nullcontext

    def __post_init__(self) -> None:
        self.linears = language_linears(self.backbone.model, self.backbone.family)

    @property
    def count(self) -> int:
        """KORE's trainable parameters at this rank: the budget."""
        if self.factors is not None:
            return kore_count(self.linears, {name: len(a) for name, a in self.factors.items()})
        return kore_count(self.linears, self.rank)

    @property
    def lora_rank(self) -> int:
        """The plain LoRA rank with the trainable count nearest to KORE's."""
        return lora_rank(self.linears, self.count)


class Method:
    """A training method. The base class is plain low-rank training with nothing added."""

    name: ClassVar[str]
    traits: ClassVar[Traits] = Traits()
    Settings: ClassVar[type[MethodSettings]] = MethodSettings

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        try:
            self.settings = self.Settings.model_validate(dict(values or {}))
        except ValidationError as error:
            first = error.errors()[0]
            key = f"method.{self.name}." + ".".join(str(p) for p in first["loc"])
            known = ", ".join(self.Settings.model_fields) or "none"
            raise ProfileError(f"{first['msg']} (settings of {self.name}: {known})", where=key) from error

    def attach(self, setup: Setup) -> None:
        """Make the method's parameters, and only them, trainable."""
        raise NotImplementedError

    def mix(self, samples: Sequence[Sample], old: Sequence[Sample], seed: int) -> list[Sample]:
        """The samples to train on, made of the new and the old ones."""
        return list(samples)

    def begin(self, setup: Setup) -> None:
        """Measure what the method needs before step 1 (not called when a run resumes)."""

    def penalty(self, model: Any, inputs: Mapping[str, Tensor], logits: Tensor | None) -> Tensor | None:
        """What is added to the cross entropy of one batch, or None.

        Args:
            inputs: the batch, labels included, (B, T).
            logits: those that predict the answer tokens, (n, V); None without `Traits.reads_logits`.
        """
        return None

    def after_step(self, model: Any) -> None:
        """After the optimiser's step, while the gradients are still there."""

    def finish(self, model: Any) -> None:
        """After the last step."""

    def held(self, model: Any) -> int:
        """Numbers inside trainable tensors that are nevertheless kept as they are."""
        return 0

    def extra_memory(self, model: Any, tokens: int) -> int:
        """Bytes per device beside weights, gradients, optimiser and activations: what is large.

        Args:
            tokens: of one forward pass.
        """
        return 0

    def note(self) -> str | None:
        """One line on what the method found, for the event log, after the last step."""
        return None

    def check(self, model: Any) -> None:
        """Raise AssertionError if what must be frozen is not."""

    def state(self) -> dict[str, Tensor]:
        """What an exact resume needs besides weights and optimiser."""
        return {}

    def restore(self, state: Mapping[str, Tensor], model: Any) -> None:
        """Take back what `state` gave."""

    def facts(self) -> dict[str, Any]:
        """What the adapter's kore.json should tell."""
        return {}

    def save(self, model: Any, folder: Path, facts: Mapping[str, Any]) -> None:
        """Write the result: a PEFT folder with kore.json."""
        from kore.adapters import lora as adapter

        adapter.save(model, folder, {**facts, **self.facts()})

    def load(self, backbone: Backbone, folder: Path) -> None:
        """Put a saved result on an untouched backbone."""
        from kore.adapters.lora import load_lora

        load_lora(backbone, folder)


def require(method: Method, *, zero: int, factors: bool, old: bool, quantised: bool = False) -> None:
    """Refuse what a method does not allow, with the reason.

    Raises:
        UsageError: a ZeRO stage or a quantised base that it does not run with, or an input that it lacks.
    """
    traits = method.traits
    if quantised and not traits.quantised:
        raise UsageError(
            f"{method.name} does not train on a quantised base: it needs the gradient of the base's weights",
            hint="set model.quantisation to none",
        )
    if zero not in traits.zero:
        raise UsageError(
            f"{method.name} does not run under ZeRO stage {zero}: {traits.why}",
            hint=f"set train.zero to one of {', '.join(map(str, traits.zero))}",
        )
    if traits.needs_factors and not factors:
        raise UsageError(
            f"{method.name} needs a covariance",
            hint="name one with --covariance DIR (made by kore calibrate), or ablate it with --no-constraint",
        )
    if traits.needs_old and not old:
        raise UsageError(f"{method.name} needs old samples", hint="name them with --old FILE")
