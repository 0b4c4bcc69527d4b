"""Covariances of any module's linear inputs, over the forward passes that the caller runs."""

from __future__ import annotations

import inspect
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kore.artifacts.manifest import Manifest, claimed
from kore.distributed import current, on_first_rank
from kore.errors import DataError, UsageError
from kore.io.files import hash_json
from kore.models.loaded import base_of, named_linears, object_fingerprint
from kore.nullspace.accumulator import Accumulator
from kore.nullspace.activation_hooks import LayerTaps, Tap, site_name
from kore.nullspace.covariance import KIND, Covariance, Site, write_shard
from kore.nullspace.layerwise import exact_products


def collect_covariance(
    model: nn.Module,
    run_model: Callable[[], object],
    *,
    target_modules: str | Sequence[str] | None = None,
    output: str | Path | None = None,
    mask_argument: str | None = "attention_mask",
    accumulate: Literal["float64", "float32"] = "float64",
    device: torch.device | str | None = None,
    label: str = "",
    restart: bool = False,
) -> Covariance:
    """Sum the covariances of the inputs of a model's linears while `run_model` runs it.

    Linears that read the same tensor (q, k and v) share one covariance. The sums of all layers are held at
    once; `kore.calibrate` keeps to a memory budget instead.

    Args:
        model: any module; a PeftModel and a quantised model too.
        run_model: called once, without arguments; runs as many forward passes of `model` as it wants. It runs
            without gradients and with the model in evaluation mode.
        target_modules: which linears, as in PEFT's LoraConfig; see `kore.models.loaded.named_linears`.
        output: where to keep the covariance; by default a temporary folder that goes with the result.
        mask_argument: the argument of `model` that is a padding mask (B, T): positions where it is 0 are left
            out. A pass without it counts all positions, and None counts all positions of every pass.
        accumulate: type of the running sums.
        device: where the sums are held; by default where each linear's weights are.
        label: what the inputs are, for people.
        restart: discard what is in `output`.

    Raises:
        UsageError: no linear matches, or `run_model` did not run one of them.
        DataError: a mask that does not fit the inputs, an activation that is not finite, or another artefact
            in `output`; with the linear's name.
    """
    linears = named_linears(model, target_modules)
    folder = Path(output or on_first_rank(lambda: tempfile.mkdtemp(prefix="kore-covariance-")))
    fingerprint = object_fingerprint(model)
    layers = numbered_layers(list(linears))
    settings = {"accumulate": accumulate, "layers": sorted(set(layers.values())), "root": fingerprint}
    manifest = Manifest(KIND, {**settings, "lineage": []}, {"model": fingerprint}, {})
    if output is not None and any(p.suffix == ".safetensors" for p in folder.glob("*")) and not restart:
        raise UsageError(
            f"{folder} already holds a covariance", hint="choose another folder, or restart=True"
        )
    dtype = getattr(torch, accumulate)
    try:
        with ExitStack() as held:
            on_first_rank(lambda: held.enter_context(claimed(folder, manifest, restart=restart)))
            began = time.monotonic()
            taps = _run(model, run_model, linears, mask_argument, dtype, device)
            for tap in taps:
                tap.sum.reduce()

            def write() -> None:
                sites = [s.to_json() for s in _write(folder, taps, layers)]
                facts = {"label": label or "collected inputs", "tokens": max(s["tokens"] for s in sites)}
                seconds = round(time.monotonic() - began, 2)
                # the passes are the caller's: what they summed to is what tells them apart
                inputs = {**manifest.inputs, "sums": hash_json(sites)}
                done = replace(manifest, inputs=inputs).finished(**facts, seconds=seconds, sites=sites)
                done.write(folder)

            on_first_rank(write)
    except BaseException:
        if output is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    made = Covariance(folder)
    if output is None and current().first:
        made.remove_with_object()
    return made


def numbered_layers(names: Sequence[str]) -> dict[str, int]:
    """The layer of each linear: the number in its name where one stack holds them all, else a count."""
    found = [re.match(r"(?:(.*?)\.)?(\d+)(?:\.|$)", name) for name in names]
    if all(found) and len({m[1] for m in found if m}) == 1:
        return {name: int(m[2]) for name, m in zip(names, found, strict=True) if m}
    stems = [m[0] if m else "" for m in found]
    order = {stem: index for index, stem in enumerate(dict.fromkeys(stems))}
    return {name: order[stem] for name, stem in zip(names, stems, strict=True)}


def _run(
    model: nn.Module,
    run_model: Callable[[], object],
    linears: Mapping[str, nn.Linear],
    mask_argument: str | None,
    dtype: torch.dtype,
    device: torch.device | str | None,
) -> list[Tap]:
    places = {name: device or linear.weight.device for name, linear in linears.items()}
    groups: dict[str, dict[str, nn.Linear]] = {}
    for name, linear in linears.items():
        groups.setdefault(str(places[name]), {})[name] = linear
    with ExitStack() as held:
        taps = [
            held.enter_context(
                LayerTaps(each, lambda width, place=place: Accumulator(width, dtype=dtype, device=place))  # type: ignore[misc]
            )
            for place, each in groups.items()
        ]
        held.enter_context(_passes(model, taps, mask_argument))
        held.enter_context(evaluating(model))
        held.enter_context(torch.no_grad())
        held.enter_context(exact_products())
        run_model()
    seen = [tap for each in taps for tap in each.taps]
    missing = set(linears) - {name for tap in seen for name in tap.linears}
    if missing:
        raise UsageError(
            f"run_model never ran {len(missing)} of {len(linears)} linears, first {sorted(missing)[0]}",
            hint="run the model in run_model, or name fewer target_modules",
        )
    return seen


@contextmanager
def _passes(model: nn.Module, taps: Sequence[LayerTaps], mask_argument: str | None) -> Iterator[None]:
    """Tell the taps where each forward pass begins and ends, and which positions count."""

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        mask = _mask(module, args, kwargs, mask_argument) if mask_argument else None
        for each in taps:
            each.start(mask)

    def after(module: nn.Module, args: tuple[Any, ...], result: object) -> None:
        for each in taps:
            each.end()

    # the base is what generate() of a PeftModel calls
    base = base_of(model)
    handles = [base.register_forward_pre_hook(before, with_kwargs=True), base.register_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _mask(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> Tensor | None:
    given = dict(kwargs)
    if args:
        with suppress(TypeError):  # the call itself will say what is wrong with it
            given |= inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
    value = given.get(name)
    if value is None:
        return None
    if not isinstance(value, Tensor) or value.dim() != 2:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise DataError(
            f"{name} is {shape}, not a padding mask (batch, positions)",
            hint="mask_argument=None counts all positions",
        )
    tokens = given.get("input_ids") if given.get("input_ids") is not None else given.get("inputs_embeds")
    if isinstance(tokens, Tensor) and tokens.shape[1] < value.shape[1]:
        value = value[:, -tokens.shape[1] :]  # generation with a cache: the mask covers earlier positions too
    return value.bool()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode inside the block; every module's own mode after it."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _write(folder: Path, taps: Sequence[Tap], layers: Mapping[str, int]) -> list[Site]:
    """Every layer's shard; returns the sites."""
    written: list[Site] = []
    for layer in sorted(set(layers.values())):
        matrices: dict[str, Tensor] = {}
        sites: list[Site] = []
        for tap in (t for t in taps if layers[t.linears[0]] == layer):
            if not tap.sum.tokens:
                raise UsageError("every position of its inputs was masked", where=tap.linears[0])
            name = site_name(tap.linears)
            if name in matrices:  # two linears of one last name: tell them apart by their whole names
                name = "_".join(tap.linears).replace(".", "-")
            matrices[name] = tap.sum.packed()
            sites.append(
                Site.measure(
                    matrices[name],
                    layer=layer,
                    site=name,
                    linears=tap.linears,
                    d_in=tap.sum.d_in,
                    tokens=tap.sum.tokens,
                )
            )
        if sites:
            write_shard(folder, layer, matrices, sites)
        written += sites
    return written
