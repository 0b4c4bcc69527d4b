"""Suggest a profile for a model on one GPU, from the shapes in its config.json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.nn import Linear

from kore.adapters.param_budget import kore_count
from kore.config.model_defaults import defaults_for
from kore.config.resolve import resolve_layers
from kore.errors import UsageError
from kore.methods.param_count import table, total
from kore.models.architectures import folder_of, skeleton
from kore.models.families import family_of, language_linears
from kore.nullspace.memory_plan import parse_bytes
from kore.training.estimate import activation_bytes, training_bytes

if TYPE_CHECKING:
    from kore.config.resolve import Resolved

USABLE = 0.85  # of a GPU's memory: the rest is CUDA's own, buffers and fragments
LARGEST = 16  # micro-batch
_GIB = 1 << 30
_LINEAR_BYTES = {"none": 2.0, "8bit": 1.0, "4bit": 0.5625}  # NF4: half a byte, and a float32 per block of 64
_CHOSEN = ("model.quantisation", "train.gradient_checkpointing", "train.micro_batch")


@dataclass(frozen=True)
class Suggestion:
    """A profile as TOML, with its estimated bytes by purpose."""

    toml: str
    memory: dict[str, int]


def suggest(model: str, gpu: str, flags: Mapping[str, Any], *, download: bool = False) -> Suggestion:
    """The fastest settings that fit: no quantisation if possible, then no checkpointing, then large batches.

    Args:
        model: a folder or a hub id.
        gpu: its memory, such as 24GiB.
        flags: settings that are given, by dotted key.
        download: allow fetching a hub id's config.json.

    Raises:
        UsageError: not a size, or nothing fits.
        MissingArtefact: the model's config.json is not here.
    """
    try:
        room = parse_bytes(gpu)
    except UsageError as error:
        raise UsageError(f"--gpu {gpu}: invalid size", hint="for example --gpu 24GiB") from error
    defaults = defaults_for(model, download=download)
    fixed: dict[str, Any] = {"model.id": model, "train.zero": 0, **flags}

    def with_(choice: Mapping[str, Any]) -> Resolved:
        return resolve_layers([defaults.layer], {**fixed, **choice}, environ={}, name=defaults.name)

    profile = with_({}).profile
    net = skeleton(folder_of(profile.model)).bfloat16()
    needed: list[int] = []
    for choice in _choices(fixed, profile.train.batch):
        resolved = with_(choice)
        memory = _memory(net, resolved)
        needed.append(sum(memory.values()))
        if needed[-1] <= room * USABLE:
            return Suggestion(_toml(resolved, model, gpu, memory, defaults.why), memory)
    raise UsageError(
        f"{model} does not fit a GPU of {gpu}: it needs about {min(needed) / USABLE / _GIB:.0f} GiB",
        hint="lower it with --set train.max_length=N or adapter.rank=N, or share it: train.zero = 3",
    )


def _choices(fixed: Mapping[str, Any], batch: int) -> Iterator[dict[str, Any]]:
    """From the fastest to the smallest; settings that are given are not varied."""
    for quantisation in _LINEAR_BYTES:
        for checkpointing in (False, True):
            for micro in (size for size in range(min(LARGEST, batch), 0, -1) if batch % size == 0):
                values = dict(zip(_CHOSEN, (quantisation, checkpointing, micro), strict=True))
                yield {key: value for key, value in values.items() if key not in fixed}


def _memory(net: Any, resolved: Resolved) -> dict[str, int]:
    """Estimated bytes by purpose, for samples of the greatest length."""
    profile = resolved.profile
    train, linears = profile.train, language_linears(net, family_of(net))
    head = net.get_output_embeddings() if hasattr(net, "get_output_embeddings") else None
    packed = sum(m.weight.numel() for m in net.modules() if isinstance(m, Linear) and m is not head)
    whole = sum(p.numel() for p in net.parameters()) - packed
    trained = total(table(profile))
    frozen = 0
    if profile.adapter.known_rank and train.method == "kore":
        inputs = sum(linear.in_features for linear in linears.values())
        frozen = (
            kore_count(linears, profile.adapter.known_rank)
            * inputs
            // sum(linear.out_features for linear in linears.values())
        )
    factors = 4 * (trained + frozen)  # PEFT keeps A and B in float32
    micro = train.micro_batch if isinstance(train.micro_batch, int) else train.batch
    tokens = micro * train.max_length
    return {
        "weights": int(2 * whole + _LINEAR_BYTES[profile.model.quantisation] * packed) + factors,
        **training_bytes(trained),
        "activations": activation_bytes(net, tokens, checkpointing=bool(train.gradient_checkpointing)),
    }


def _toml(resolved: Resolved, model: str, gpu: str, memory: dict[str, int], why: str) -> str:
    """The settings that are not defaults, by section, under a heading that says where they come from."""
    parts = ", ".join(f"{name} {size / _GIB:.1f}" for name, size in memory.items())
    length = resolved.profile.train.max_length
    lines = [
        f"# by kore profiles suggest, from: {why}",
        f"# estimate for samples of {length:,} tokens: {sum(memory.values()) / _GIB:.1f} GiB ({parts})",
        f"description = {json.dumps(f'{model} on one GPU of {gpu}; suggested by an estimate, not tried')}",
    ]
    sections: dict[str, list[str]] = {}
    for key, value in resolved.values().items():
        section, _, name = key.rpartition(".")
        if section and value is not None and resolved.origin.get(key, "default") != "default":
            sections.setdefault(section, []).append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
    for section, settings in sections.items():
        lines += ["", f"[{section}]", *settings]
    return "\n".join(lines) + "\n"
