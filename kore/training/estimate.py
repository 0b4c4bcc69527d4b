"""What a run is about to do: trainable table, effective batch, steps, tokens, memory. Said before step 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kore.adapters.param_budget import size
from kore.models.answer_loss import CHUNK
from kore.training.hardware import Hardware, choose
from kore.training.hf_args import Split

if TYPE_CHECKING:
    from kore.config.resolve import TrainSection
    from kore.models.load import Backbone
    from kore.training.master_weights import Wide

_GIB = 1 << 30


@dataclass(frozen=True)
class Group:
    """Trainable parameters of one kind: how many tensors and numbers, and their learning rate."""

    name: str
    tensors: int
    count: int
    lr: float


@dataclass(frozen=True)
class Plan:
    """What will happen.

    Attributes:
        tokens: in one pass over the samples, padding left out.
        memory: bytes per device by purpose; an estimate.
        hardware: choices made for the device.
    """

    method: str
    groups: tuple[Group, ...]
    total: int
    split: Split
    samples: int
    steps: int
    epochs: float
    tokens: int
    longest: int
    memory: dict[str, int]
    hardware: Hardware

    @property
    def trainable(self) -> int:
        """Parameters trained."""
        return sum(g.count for g in self.groups)

    def to_json(self) -> dict[str, Any]:
        """As a plain object."""
        return {
            "method": self.method,
            "trainable": self.trainable,
            "parameters": self.total,
            "groups": [g.__dict__ for g in self.groups],
            "batch": self.split.batch,
            "micro_batch": self.split.micro,
            "accumulate": self.split.accumulate,
            "devices": self.split.world,
            "samples": self.samples,
            "steps": self.steps,
            "epochs": self.epochs,
            "tokens_per_epoch": self.tokens,
            "longest": self.longest,
            "memory": self.memory,
            "hardware": asdict(self.hardware),
        }


def trainable_groups(backbone: Backbone, section: TrainSection) -> tuple[Group, ...]:
    """Trainable parameters by module and factor, layers put together."""
    found: dict[str, list[int]] = {}
    rates: dict[str, float] = {}
    projector = backbone.family.projector
    for name, parameter in backbone.model.named_parameters():
        if not parameter.requires_grad:
            continue
        short = (
            name.removeprefix("base_model.model.")
            .removeprefix("inner.")
            .replace(".default", "")
            .removesuffix(".weight")
        )
        outside = projector is not None and projector in name
        if outside:
            short = projector or short
        elif (inner := backbone.family.within_layer(short)) != short:
            short = f"layers.*.{inner}"
        found.setdefault(short, []).append(size(parameter))
        rates[short] = section.projector if outside and section.projector != "off" else section.lr
    return tuple(Group(n, len(sizes), sum(sizes), rates[n]) for n, sizes in found.items())


def plan(
    backbone: Backbone,
    section: TrainSection,
    method: str,
    parts: Split,
    lengths: Sequence[int],
    steps: int,
    wide: Wide | None = None,
    extra: Callable[[Any, int], int] = lambda model, tokens: 0,
) -> Plan:
    """Work out the plan of a prepared run.

    Args:
        backbone: with the method attached.
        lengths: tokens per sample.
        extra: the method's own bytes, of the model and the tokens of a forward pass.
        wide: parameters in float32, of which autocast makes halves for each pass.
    """
    groups = trainable_groups(backbone, section)
    parameters = list(backbone.model.parameters())
    total = sum(size(p) for p in parameters)
    longest = max(lengths)
    bytes_of = {"weights": sum(size(p) * p.element_size() for p in parameters)}
    if wide:
        bytes_of["weights"] += sum(size(p) * wide.dtype.itemsize for p in wide.parameters)
    trained = sum(g.count for g in groups)
    low = any(p.requires_grad and p.element_size() == 2 for p in parameters)
    bytes_of |= training_bytes(trained, low=low)
    if section.zero:
        bytes_of["optimiser"] //= parts.world
        bytes_of["gradients"] //= parts.world if section.zero >= 2 else 1
        bytes_of["weights"] //= parts.world if section.zero == 3 else 1
    tokens = parts.micro * longest
    bytes_of["activations"] = activation_bytes(backbone.model, tokens, checkpointing=False)
    if own := extra(backbone.model, tokens):
        bytes_of["method"] = own
    hardware = choose(backbone.model, backbone.device, section, sum(bytes_of.values()))
    if hardware.checkpointing:
        bytes_of["activations"] = activation_bytes(backbone.model, tokens, checkpointing=True)
    return Plan(
        method,
        groups,
        total,
        parts,
        len(lengths),
        steps,
        steps * parts.batch / len(lengths),
        sum(lengths),
        longest,
        bytes_of,
        hardware,
    )


def training_bytes(trained: int, *, low: bool = False) -> dict[str, int]:
    """Gradients and Adam's state of so many trained parameters.

    Args:
        low: they are held in half precision, with float32 copies in the optimiser.
    """
    return {"gradients": trained * (2 if low else 4), "optimiser": trained * (12 if low else 8)}


def activation_bytes(model: Any, tokens: int, *, checkpointing: bool) -> int:
    """Rough: what the language layers keep for the backward pass, and a chunk of logits with its gradient."""
    config = model.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    hidden, layers = int(text.hidden_size), int(text.num_hidden_layers)
    inner = int(getattr(text, "intermediate_size", 4 * hidden))
    # what the layers hand on is as wide as the embedding: float32 where that is trained in full
    width = model.get_input_embeddings().weight.element_size()
    layer = (10 * hidden + 4 * inner) * width
    kept = layers * hidden * width + layer if checkpointing else layers * layer
    logits = min(4 * tokens * int(text.vocab_size), CHUNK)
    return int(tokens * kept + 3 * logits)


def describe(plan: Plan) -> list[str]:
    """The plan in lines for a person."""
    width = max(len(g.name) for g in plan.groups)
    lines = [f"{plan.method} trains {plan.trainable:,} of {plan.total:,} parameters"]
    lines += [
        f"  {g.name:<{width}}  {g.tensors:>4} tensors  {g.count:>13,}  lr {g.lr:g}" for g in plan.groups
    ]
    lines.append(
        f"batch {plan.split.batch} = {plan.split}; {plan.steps:,} steps, {plan.epochs:.1f} passes over "
        f"{plan.samples:,} samples ({plan.tokens:,} tokens, longest {plan.longest})"
    )
    parts = ", ".join(f"{k} {v / _GIB:.2f}" for k, v in plan.memory.items())
    lines.append(str(plan.hardware))
    lines.append(f"memory per device about {sum(plan.memory.values()) / _GIB:.2f} GiB ({parts})")
    return lines
