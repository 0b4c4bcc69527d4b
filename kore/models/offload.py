"""A model whose decoder layers stay on disk: the skeleton on the meta device, one layer in memory at a time.

Everything outside the decoder layers (embeddings, vision tower, projector) is loaded while it is
needed and let go again, so a 7B can be calibrated where a 7B does not fit.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kore.errors import DataError, UsageError
from kore.models.architectures import skeleton
from kore.models.checkpoint import check_finite, weight_files
from kore.models.families import Family, family_of, language_layers, model_class
from kore.models.load import (
    Backbone,
    fingerprint,
    load_processor,
    model_folder,
    pick_device,
    pick_dtype,
    refuse_incomplete,
    set_reading,
)
from kore.models.load_errors import loading

if TYPE_CHECKING:
    from kore.config.resolve import ModelSection


class Shards:
    """Tensors of a checkpoint folder, found by the model's own names.

    Args:
        folder: safetensors shards.
        rename: from a checkpoint's key to the model's name.

    Raises:
        DataError: no safetensors files, or broken ones.
    """

    def __init__(self, folder: Path, rename: Callable[[str], str]) -> None:
        from safetensors import safe_open

        self.folder = folder
        self._where: dict[str, tuple[Path, str]] = {}
        for path in weight_files(folder):
            with safe_open(path, framework="pt") as stream:
                for key in stream.keys():  # noqa: SIM118 (not a mapping)
                    self._where[rename(key)] = (path, key)

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def tensor(self, name: str) -> Tensor:
        """One tensor by the model's name for it, on the CPU, in its stored type.

        Raises:
            DataError: the checkpoint has none, or it holds NaN or infinity.
        """
        from safetensors import safe_open

        path, key = self._find(name)
        with safe_open(path, framework="pt") as stream:
            value = stream.get_tensor(key)
        assert isinstance(value, Tensor)
        check_finite([(name, value)], path)
        return value

    def _find(self, name: str) -> tuple[Path, str]:
        if name not in self._where:
            raise DataError("the checkpoint holds no such tensor", where=name)
        return self._where[name]

    def weight(self, linear: str) -> Tensor:
        """W0 of a linear by its full name, (d_out, d_in)."""
        return self.tensor(f"{linear}.weight")

    def out_features(self, linear: str) -> int:
        """d_out of a linear, from the file's header."""
        from safetensors import safe_open

        path, key = self._find(f"{linear}.weight")
        with safe_open(path, framework="pt") as stream:
            return int(stream.get_slice(key).get_shape()[0])


class LayerShards:
    """Brings a skeleton's decoder layers into memory one at a time (a `Weights` of calibration)."""

    keeps_all = False

    def __init__(
        self, model: Any, family: Family, shards: Shards, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._model = model
        self._family = family
        self._layers = language_layers(model, family)
        self.shards = shards
        self.then: Callable[[], None] = lambda: None  # after the outside's weights are in place
        self._dtype = dtype
        self._device = device
        self._depth = 0
        first = sum(t.numel() for t in self._layers[0].parameters())
        self._item = torch.empty(0, dtype=dtype).element_size()
        self._layer_bytes = first * self._item
        in_layers = f"{family.layers}."
        self._outside_bytes = self._item * sum(
            p.numel() for n, p in model.named_parameters() if not n.startswith(in_layers)
        )

    @property
    def peak_bytes(self) -> int:
        """The larger of one decoder layer and everything outside the layers."""
        return int(max(self._layer_bytes, self._outside_bytes))

    @contextmanager
    def layer(self, index: int) -> Iterator[None]:
        """Decoder layer `index` in memory inside the block."""
        layer = self._layers[index]
        prefix = f"{self._family.layers}.{index}."
        state = {
            name: self.shards.tensor(prefix + name).to(self._device, self._dtype)
            for name in layer.state_dict()
        }
        layer.load_state_dict(state, strict=True, assign=True)
        del state
        try:
            yield
        finally:
            layer.to("meta")
            gc.collect()

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Everything that runs before the decoder layers in memory inside the block; may be nested."""
        self._depth += 1
        if self._depth == 1:
            self._bring()
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                for part in self._outer():
                    part.to("meta")
                gc.collect()

    def _outer(self) -> Iterator[nn.Module]:
        """The largest modules that hold none of the decoder layers."""

        def walk(module: nn.Module, name: str) -> Iterator[nn.Module]:
            if name == self._family.layers:
                return
            if not f"{self._family.layers}.".startswith(f"{name}.") and name:
                yield module
                return
            for child_name, child in module.named_children():
                yield from walk(child, f"{name}.{child_name}" if name else child_name)

        return walk(self._model, "")

    def _bring(self) -> None:
        """Load what is outside the layers by loading the model with no layer at all.

        transformers computes the buffers that no checkpoint holds (rotary frequencies); its own
        loading of a model of zero decoder layers is the one way that gets all of them right.
        """
        config = copy.deepcopy(self._model.config)
        text = config.get_text_config()
        text.num_hidden_layers = 0
        if getattr(text, "layer_types", None):
            text.layer_types = []
        folder = self.shards.folder
        with loading("model", folder):
            loaded: Any = model_class(config).from_pretrained(
                folder, config=config, dtype=self._dtype, trust_remote_code=False, output_loading_info=True
            )
        empty, info = loaded
        refuse_incomplete(info, folder, ("missing",))  # the decoder layers are unexpected here
        check_finite(empty.named_parameters(), folder)
        empty.to(self._device)
        head = empty.get_output_embeddings()
        if head is not None:
            head.to("meta")  # runs after the layers: never needed here
        for name, child in list(empty.named_modules()):
            if not _inside(name, self._family.layers):
                _place(self._model, name, child)
        self.then()

    def missing(self) -> list[str]:
        """Parameters of the decoder layers that the checkpoint does not hold."""
        return [
            name
            for name, _ in self._model.named_parameters()
            if name.startswith(f"{self._family.layers}.") and name not in self.shards
        ]


def _inside(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def _place(model: nn.Module, name: str, module: nn.Module) -> None:
    """Move a module's own tensors into the module of the same name."""
    target = model.get_submodule(name)
    for key, parameter in module._parameters.items():
        target._parameters[key] = parameter
    for key, buffer in module._buffers.items():
        target._buffers[key] = buffer


def renamer(model: Any, *, whole_layout: bool = True) -> Callable[[str], str]:
    """From a published checkpoint's key to the model's own name, by transformers' own table.

    Args:
        whole_layout: refuse decoder weights that are stored in another layout, not only other names.

    Raises:
        DataError: this family's decoder weights are stored in another layout, not only other names.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    mapping = get_model_conversion_mapping(model)
    names = [m for m in mapping if isinstance(m, WeightRenaming)]
    layouts = [m for m in mapping if isinstance(m, WeightConverter)]
    state = model.state_dict()
    prefix = model.base_model_prefix

    def rename(key: str) -> str:
        renamed, pattern = rename_source_key(key, names, layouts, prefix, state)
        if whole_layout and pattern is not None and ".layers." in renamed and "vis" not in renamed:
            raise DataError(
                f"{type(model).__name__} stores its decoder layers in a layout that cannot be read in parts",
                where=key,
                hint="calibrate it without --offload",
            )
        return str(renamed)

    return rename


def open_skeleton(section: ModelSection, *, download: bool = False) -> tuple[Backbone, LayerShards]:
    """A backbone whose layers are on the meta device, and what brings them into memory.

    Raises:
        MissingArtefact: the model is not here.
        DataError: the checkpoint does not hold every decoder layer.
        UsageError: with a quantised base, which is read whole.
    """
    from transformers.utils import logging

    if section.quantisation != "none":
        raise UsageError("a quantised base is read whole", hint="leave --offload out")
    silence: Any = logging
    silence.set_verbosity_error()
    silence.disable_progress_bar()
    folder = model_folder(section.id, download=download)
    processor = load_processor(folder, section)
    model = skeleton(folder).eval()
    reads = set_reading(model, processor, section)
    family = family_of(model)
    device = pick_device(section.device)
    dtype = pick_dtype(section.dtype, device)
    weights = LayerShards(model, family, Shards(folder, renamer(model)), dtype, device)
    if missing := weights.missing():
        raise DataError(f"the checkpoint lacks {len(missing)} tensors of its layers", where=missing[0])
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return Backbone(model, processor, family, folder, fingerprint(folder), device, reads=reads), weights
