"""Reads eigenvalue curves from spectra.json, without the code for covariances."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kore.io.files import read_json
from kore_cli.dashboard.store import number


@dataclass(frozen=True)
class Site:
    """One input with its covariance's spectrum.

    Attributes:
        layer, site: its place, e.g. 3 and "attn.qkv".
        index: ranks (from 1) of the eigenvalues stored for plotting. eigenvalues: descending.
        rank: the number of smallest directions that the adapter uses.
        energy_left: share of old-input energy in those directions. held_out: the same on samples
            that are not in the covariance. heatmap: 32 rows of 32 values.
    """

    name: str
    layer: int | None
    site: str
    d_in: int
    index: tuple[float, ...] = ()
    eigenvalues: tuple[float, ...] = ()
    tokens: float | None = None
    trace: float | None = None
    effective_rank: float | None = None
    rank: int | None = None
    energy_left: float | None = None
    held_out: float | None = None
    heatmap: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class SpectrumSet:
    """The spectra of one covariance."""

    label: str
    path: Path
    sites: tuple[Site, ...]

    def site(self, name: str) -> Site | None:
        """A site by name."""
        return next((s for s in self.sites if s.name == name), None)


def distinct(sets: Iterable[SpectrumSet]) -> tuple[SpectrumSet, ...]:
    """Drop those that repeat an earlier one: a run stores its covariance's curves, with the rank added."""
    unique: dict[tuple[object, ...], SpectrumSet] = {}
    for spectra in sets:
        key = tuple((s.name, s.trace, s.eigenvalues[:4]) for s in spectra.sites)
        unique.setdefault(key, spectra)
    return tuple(unique.values())


def read_spectra(path: Path) -> SpectrumSet:
    """Read one spectra.json.

    Raises:
        DataError: not readable as JSON. ValueError: a site's ranks and eigenvalues differ in number.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        return SpectrumSet(path.parent.name, path, ())
    sites = tuple(_site(raw) for raw in value.get("sites") or () if isinstance(raw, dict) and raw.get("name"))
    return SpectrumSet(str(value.get("label") or path.parent.name), path, sites)


def _site(raw: Mapping[str, Any]) -> Site:
    name = str(raw["name"])
    values = _floats(raw.get("eigenvalues"))
    d_in = int(number(raw.get("d_in")) or len(values))
    index = _floats(raw.get("index"))
    if index and index[0] == 0:
        index = tuple(i + 1 for i in index)
    if index and (len(index) != len(values) or not all(map(math.isfinite, index))):
        raise ValueError(f"{name}: {len(index)} ranks of {len(values)} eigenvalues")
    layer = number(raw.get("layer"))
    rank = number(raw.get("rank"))
    return Site(
        name=name,
        layer=None if layer is None else int(layer),
        site=str(raw.get("site") or name),
        d_in=d_in,
        index=index or tuple(float(i + 1) for i in range(len(values))),
        eigenvalues=values,
        tokens=number(raw.get("tokens")),
        trace=number(raw.get("trace")),
        effective_rank=number(raw.get("effective_rank")),
        rank=None if rank is None else int(rank),
        energy_left=number(raw.get("energy_left")),
        held_out=number(raw.get("held_out")),
        heatmap=tuple(_floats(row) for row in raw.get("heatmap") or () if isinstance(row, list)),
    )


def _floats(values: object) -> tuple[float, ...]:
    if not isinstance(values, list):
        return ()
    return tuple(v if (v := number(raw)) is not None else math.nan for raw in values)
