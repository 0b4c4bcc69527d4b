"""A covariance folder: one safetensors shard per decoder layer, one manifest for all.

A shard holds the packed upper triangle of each site's matrix in float64 and tells its sites in its
header, so a folder can be read, resumed and checked shard by shard.
"""

from __future__ import annotations

import json
import shutil
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kore.artifacts.manifest import LOCK, Manifest, read_manifest
from kore.errors import DataError, MissingArtefact, UsageError
from kore.io.files import atomic_write
from kore.models.lineage import Lineage
from kore.nullspace.accumulator import unpack

KIND = "covariance"
MADE_BY = "kore calibrate --samples demo"


@dataclass(frozen=True)
class Site:
    """One distinct input of a decoder layer.

    Attributes:
        name: layers.0.qkv.
        linears: full names of the linears that read this input.
        tokens: how many token vectors were summed.
        trace: total energy, the sum of their squared lengths.
        square: sum of the squared entries of C, for the effective rank trace^2 / square.
    """

    name: str
    layer: int
    site: str
    linears: tuple[str, ...]
    d_in: int
    tokens: int
    trace: float
    square: float

    @property
    def effective_rank(self) -> float:
        """The participation ratio of C's eigenvalues: how many directions carry the energy."""
        return self.trace**2 / self.square if self.square else 0.0

    def to_json(self) -> dict[str, Any]:
        """A plain object, with the effective rank."""
        return {**asdict(self), "linears": list(self.linears), "effective_rank": self.effective_rank}

    @staticmethod
    def measure(packed: Tensor, *, layer: int, site: str, linears: list[str], d_in: int, tokens: int) -> Site:
        """The record of a site from its packed matrix."""
        ends = torch.arange(d_in)
        diagonal = packed[ends * d_in - ends * (ends - 1) // 2].double()
        square = 2 * float(packed.double().norm()) ** 2 - float(diagonal.square().sum())
        name = f"layers.{layer}.{site}"
        return Site(name, layer, site, tuple(linears), d_in, tokens, float(diagonal.sum()), square)


def shard(folder: Path, layer: int) -> Path:
    """The file of a layer's matrices."""
    return folder / f"layer-{layer:04d}.safetensors"


def write_shard(folder: Path, layer: int, matrices: Mapping[str, Tensor], sites: list[Site]) -> None:
    """Write one layer's packed matrices, by site, atomically."""
    from safetensors.torch import save_file

    header = {"sites": json.dumps([asdict(s) for s in sites])}
    with atomic_write(shard(folder, layer), "wb") as stream:
        # by name: through the stream it would all be copied into one piece of bytes first
        save_file({k: v.contiguous() for k, v in matrices.items()}, stream.name, metadata=header)


def read_sites(path: Path) -> list[Site]:
    """The sites of one shard, from its header alone.

    Raises:
        DataError: not such a file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stream:
            header = stream.metadata() or {}
        return [Site(**{**v, "linears": tuple(v["linears"])}) for v in json.loads(header["sites"])]
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DataError("not a covariance shard", where=str(path)) from error


def _settings(reads: Mapping[str, Any]) -> str:
    return ", ".join(f"model.{k}={v}" for k, v in sorted(reads.items())) or "the model's own settings"


class Covariance:
    """A finished covariance folder.

    Args:
        folder: made by `kore calibrate`, `kore.calibrate` or `kore.collect_covariance`.

    Raises:
        MissingArtefact: none here, or not finished.
        DataError: a shard of it is gone.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = folder = Path(folder)
        self.manifest: Manifest = read_manifest(folder, kind=KIND, made_by=MADE_BY)
        if self.manifest.status != "done":
            raise MissingArtefact(
                f"the covariance {folder} is not finished", hint="go on with the kore calibrate that began it"
            )
        self.sites = [s for path in sorted(folder.glob("layer-*.safetensors")) for s in read_sites(path)]
        self._of = {linear: s for s in self.sites for linear in s.linears}
        held = {s.name for s in self.sites}
        lost = [s["name"] for s in self.manifest.facts.get("sites", []) if s["name"] not in held]
        if lost:
            raise DataError(
                f"its shards are incomplete: {lost[0]} is missing",
                where=str(folder),
                hint="bring the file back, or make the covariance again with --restart",
            )

    def remove_with_object(self) -> None:
        """Remove the folder when this object goes: it is a temporary one."""
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def save(self, folder: str | Path) -> Covariance:
        """Copy the covariance into a new folder, and return it from there.

        Raises:
            UsageError: the folder exists.
        """
        target = Path(folder)
        if target.exists():
            raise UsageError(f"{target} exists", hint="choose another folder")
        shutil.copytree(self.folder, target, ignore=shutil.ignore_patterns(LOCK))
        return Covariance(target)

    @property
    def model(self) -> str:
        """Fingerprint of the model whose inputs were summed."""
        return self.manifest.inputs["model"]

    @property
    def lineage(self) -> Lineage:
        """The base that the model began as, and the adapters that had been merged into it."""
        settings = self.manifest.settings
        return Lineage(str(settings.get("root", self.model)), tuple(settings.get("lineage", ())))

    @property
    def reads(self) -> dict[str, Any]:
        """What had been changed of how the model reads its inputs."""
        return dict(self.manifest.settings.get("reads", {}))

    def check_reads(self, reads: Mapping[str, Any]) -> None:
        """Refuse to go with a model, or another covariance of it, that reads its inputs otherwise.

        Raises:
            DataError: names the settings on both sides.
        """
        if self.reads != reads:
            raise DataError(
                f"these inputs were read with {_settings(self.reads)}, here they are read with "
                f"{_settings(reads)}",
                where=str(self.folder),
                hint="calibrate and train with the same model settings",
            )

    @property
    def label(self) -> str:
        """What was summed, for people."""
        return str(self.manifest.facts.get("label", self.folder.name))

    def site_of(self, linear: str) -> Site:
        """The site that feeds a linear.

        Raises:
            DataError: the linear was not calibrated.
        """
        if linear not in self._of:
            raise DataError(f"the covariance {self.folder} holds nothing for it", where=linear)
        return self._of[linear]

    def matrix(self, site: Site) -> Tensor:
        """C of a site, (d_in, d_in) float64.

        Raises:
            DataError: nan or infinity in it.
        """
        matrix = unpack(self.packed(site), site.d_in).double()
        if not bool(torch.isfinite(matrix).all()):
            raise DataError("the covariance holds nan or infinity", where=site.name)
        return matrix

    def packed(self, site: Site) -> Tensor:
        """The packed upper triangle of a site's C."""
        from safetensors import safe_open

        with safe_open(shard(self.folder, site.layer), framework="pt") as stream:
            value = stream.get_tensor(site.site)
        assert isinstance(value, Tensor)
        return value

    def by_layer(self) -> Iterator[tuple[int, list[Site]]]:
        """Layers in order with their sites."""
        for layer in sorted({s.layer for s in self.sites}):
            yield layer, [s for s in self.sites if s.layer == layer]
