"""Resolve settings: explicit ones, else the run's, else the model's shipped profile, else its family's rules.

Explicit settings are flags, KORE_* variables and a named profile. Reads TOML and config.json only: no torch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kore.artifacts.model_folder import EMBEDDED, embedded_base, hub_id, read_config
from kore.artifacts.resolve_target import base_of, resolve_target
from kore.artifacts.run import Run, run_named
from kore.config.resolve import Layer, Resolved, find, read, resolve, resolve_layers, shipped_names
from kore.errors import KoreError

TOY = "tiny"
PAPER_SHARE = 235 / 4096  # the paper's rank over the hidden size of LLaVA-1.5-7B
LONGEST = 2048
WIDE = 2048  # hidden size from which a model has billions of parameters: one sample at a time
FREE_SIZE = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
MAX_PIXELS = 262_144
TILED = ("smolvlm", "idefics3", "llava_next", "llava_onevision", "internvl")  # up to 2,900 tokens an image
# what configurations of these families leave out, because transformers' default is the model's value
_WIDTHS = {"llama": 4096, "mistral": 4096}
_INCIDENTAL = ("dtype", "torch_dtype", "transformers_version", "_name_or_path")


@dataclass(frozen=True)
class Defaults:
    """The settings that go with a model.

    Attributes:
        name: of the profile, or of the rules.
        why: how they were chosen, for the line that reports it.
        note: why nothing closer was chosen.
    """

    name: str
    layer: Layer
    why: str
    note: str = ""


def resolve_training(
    profile: str = "",
    flags: dict[str, Any] | None = None,
    *,
    after: Path | None = None,
    download: bool = False,
) -> Resolved:
    """Settings of a command that works on a model: calibrate, train, inject, augment.

    Without a model named (a flag, KORE_MODEL__ID) it is that of the earlier run, else kore-tiny.

    Args:
        profile: a named profile; its settings are used as they are.
        after: an earlier run or adapter; its own model settings are kept.
        download: allow fetching a hub id's config.json.

    Raises:
        ProfileError: no such profile, or a bad setting.
    """
    given = _given(flags)
    if profile:
        return _named(profile, given)
    named = given.get("model.id") or os.environ.get("KORE_MODEL__ID") or ""
    layers: list[Layer] = []
    model = str(named) or EMBEDDED
    if after is not None and not named:
        target = resolve_target(str(after))
        model = target.model if target.adapter else EMBEDDED
        layers = [Layer("run", str(after), {"model": {"id": model}})]
        if target.run is not None:
            layers.insert(0, _recorded(target.run, "model"))
    defaults = defaults_for(model, download=download)
    note = defaults.note or ("" if named else f"the model of {after}" if layers else "no model is named")
    return _resolved(defaults, layers, given, note)


def resolve_inference(
    target: str, profile: str = "", flags: dict[str, Any] | None = None, *, download: bool = False
) -> Resolved:
    """Settings of a command that prompts a model: eval, chat, analyze.

    A run brings its own model and evaluation settings; an adapter, those that go with its base.

    Args:
        target: a run (path, or name under the runs folder), an adapter or a model; empty: none is named.
        profile: a named profile; its settings are used as they are.

    Raises:
        ProfileError: no such profile, or a bad setting.
    """
    given = _given(flags)
    if profile:
        return _named(profile, given)
    if not target:
        return resolve_training("", given, download=download)
    run = None if target == EMBEDDED else run_named(target)
    if run is not None:
        defaults = defaults_for(base_of(run) or EMBEDDED, download=download)
        resolved = _resolved(defaults, [_recorded(run, "model", "eval")], given, "")
        return replace(resolved, why=f"model and evaluation as in {run.folder}")
    try:
        model = resolve_target(target).model
    except KoreError:  # whoever loads it reports what is missing
        model = target
    defaults = defaults_for(model, download=download)
    return _resolved(defaults, [Layer("model", model, {"model": {"id": model}})], given, defaults.note)


def describe(resolved: Resolved, *keys: str) -> str | None:
    """One line: which settings were chosen, and why; None for a profile that was named.

    Args:
        keys: settings to give the values of.
    """
    if not resolved.why:
        return None
    values = resolved.values()
    shown = ", ".join(f"{key.rpartition('.')[2]} {_text(values[key])}" for key in keys)
    return f"settings: {resolved.why}: {shown}" + (f"; {resolved.note}" if resolved.note else "")


def misplaced_toy(resolved: Resolved) -> str | None:
    """A warning where the toy's profile was named for another model."""
    model = resolved.profile.model.id
    if resolved.why or resolved.name != TOY or is_embedded(model):
        return None
    adapter, train = resolved.profile.adapter, resolved.profile.train
    return (
        f"profile {TOY} is made for {EMBEDDED} (rank {_text(adapter.rank)}, lr {_text(train.lr)}, at most "
        f"{_text(train.max_steps)} steps), not for {model}: leave --profile out for settings that follow it"
    )


def defaults_for(model: str, *, download: bool = False) -> Defaults:
    """The shipped profile whose model this is, else the rules of its family."""
    if is_embedded(model):
        return _shipped(TOY, EMBEDDED)
    config = None
    for name in shipped_names():
        section = read(find(name)).get("model", {})
        shipped = section.get("id")
        if shipped and shipped != EMBEDDED and _same_model(model, shipped, section.get("architecture")):
            return _shipped(name, shipped)
    config = read_config(model, download=download)
    if config is None:
        values = family_rules({"vision_config": {}})
        note = f"no config.json of {model} is here"
        return Defaults(
            "defaults", Layer("model", model, values), "defaults for a model that is not known", note
        )
    family = next(iter(config.get("architectures") or []), config.get("model_type", "unknown"))
    why = f"family rules for {family} (hidden size {hidden_size(config) or 'unknown'})"
    layer = Layer("model", model, family_rules(config))
    return Defaults("family-rules", layer, why, f"no shipped profile names {model}")


def is_embedded(model: str) -> bool:
    """Whether it is kore-tiny, a copy of it, or what became of it (a merged export)."""
    if model == EMBEDDED or (Path(model) / "kore_base.json").is_file():
        return True
    if not Path(model).is_dir():
        return False
    mine, theirs = read_config(EMBEDDED), read_config(model)
    return theirs is not None and _essence(mine or {}) == _essence(theirs)


def family_rules(config: dict[str, Any]) -> dict[str, Any]:
    """Settings by what config.json says: the paper's schedule, its rank in proportion to the width.

    Args:
        config: of the whole model; what it leaves out gets the defaults of any model.
    """
    family, width = config.get("model_type"), hidden_size(config)
    context = _text_config(config).get("max_position_embeddings")
    longest = 2 * LONGEST if family in TILED else LONGEST
    wide = width is not None and width >= WIDE
    return {
        "model": {"max_pixels": MAX_PIXELS} if family in FREE_SIZE else {},
        "augment": {"teacher": "offline"},
        "calibrate": {"samples": ["onevision"] if "vision_config" in config else []},
        "adapter": {"rank": paper_rank(width)} if width else {},
        "train": {
            "lr": 2e-4,
            "projector": "off",
            "epochs": 6,
            "schedule": "cosine",
            "warmup": 0.03,
            "batch": 16,
            **({"micro_batch": 1, "gradient_checkpointing": True} if wide else {}),
            "max_length": min(longest, context) if isinstance(context, int) else longest,
        },
        "eval": {"batch": 8, "max_new_tokens": 128},
    }


def paper_rank(width: int) -> int:
    """The paper's share of the hidden size (5.7 %), rounded to a multiple of 8, at least 8."""
    return max(8, 8 * round(width * PAPER_SHARE / 8))


def hidden_size(config: dict[str, Any]) -> int | None:
    """The language model's hidden size; None where config.json does not give it."""
    text = _text_config(config)
    known = _WIDTHS.get(str(text.get("model_type")))
    width = next((text[key] for key in ("hidden_size", "n_embd", "d_model") if key in text), known)
    return width if isinstance(width, int) else None


def _text_config(config: dict[str, Any]) -> dict[str, Any]:
    parts = (config.get(key) for key in ("text_config", "llm_config", "language_config"))
    return next((part for part in parts if isinstance(part, dict)), config)


def _same_model(model: str, shipped: str, architecture: str | None) -> bool:
    """Whether `model` is the hub id `shipped`, its hub-cache folder, or a folder of its name and width."""
    if model == shipped:
        return True
    if hub := hub_id(model):
        return hub.lower() == shipped.lower()
    folder = Path(model)
    if not folder.is_dir() or folder.resolve().name.lower() != shipped.rpartition("/")[2].lower():
        return False
    mine = read_config(model)
    reference = Path(embedded_base().parents[1] / "models" / "architectures" / (architecture or ""))
    theirs = read_config(str(reference))
    return mine is not None and (theirs is None or hidden_size(mine) == hidden_size(theirs))


def _shipped(name: str, model: str) -> Defaults:
    path = find(name)
    return Defaults(name, Layer("profile", str(path), read(path)), f"profile {name}, shipped for {model}")


def _named(profile: str, given: dict[str, Any]) -> Resolved:
    """A named profile as it is, except that the toy's old samples are never another model's by default."""
    resolved = resolve(profile, given)
    model = resolved.profile.model.id
    if resolved.origin["calibrate.samples"] != "default" or is_embedded(model):
        return resolved
    samples = family_rules(read_config(model) or {"vision_config": {}})["calibrate"]
    path = find(profile)
    layers = [Layer("model", model, {"calibrate": samples}), Layer("profile", str(path), read(path))]
    return resolve_layers(layers, given, name=resolved.name)


def _resolved(defaults: Defaults, layers: list[Layer], given: dict[str, Any], note: str) -> Resolved:
    resolved = resolve_layers([defaults.layer, *layers], given, name=defaults.name)
    return replace(resolved, why=defaults.why, note=note)


def _recorded(run: Run, *sections: str) -> Layer:
    """Sections of the settings that a run was made with."""
    values = run.state().profile or {}
    return Layer("run", str(run.folder), {name: values[name] for name in sections if values.get(name)})


def _given(flags: dict[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (flags or {}).items() if value is not None}


def _essence(config: dict[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in config.items() if key not in _INCIDENTAL}
    return {key: _essence(value) if isinstance(value, dict) else value for key, value in plain.items()}


def _text(value: object) -> str:
    """A value as a profile's author would write it: 2e-4, not 0.0002."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if not isinstance(value, float):
        return "none" if value is None else str(value)
    mantissa, _, exponent = f"{value:.3e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"
