"""Sums of covariances: C = sum of w_i C_i over folders of one model or of one model's lineage.

A sum holds the sites that all its parts hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from pathlib import Path

import torch

from kore.artifacts.manifest import Manifest, claimed, refuse_input_as_output
from kore.errors import DataError, UsageError
from kore.nullspace.covariance import KIND, Covariance, Site, read_sites, shard, write_shard
from kore.progress import Progress, silent


def combine(
    folders: Sequence[Path],
    out: Path,
    *,
    weights: Sequence[float] | None = None,
    restart: bool = False,
    progress: Progress = silent,
) -> Covariance:
    """Write the weighted sum of covariances.

    Args:
        weights: one per folder, 1 if not given.

    Raises:
        UsageError: fewer than two folders, weights that do not fit or are not positive and finite, or
            `out` is one of the folders.
        DataError: covariances of models that are not one chain, or without a site in common.
    """
    if len(folders) < 2:
        raise UsageError("give at least two covariances to combine")
    refuse_input_as_output(out, folders)
    parts = [Covariance(folder) for folder in folders]
    shares = list(weights) if weights else [1.0] * len(parts)
    if len(shares) != len(parts) or any(not 0 < w < inf for w in shares):
        raise UsageError(f"{len(parts)} covariances need {len(parts)} positive weights, each a finite number")
    last = _last_of_chain(parts)
    common = _common(parts)
    settings = {
        "lineage": last.manifest.settings.get("lineage", []),
        "root": last.lineage.root,
        "weights": shares,
    }
    if last.reads:
        settings["reads"] = last.reads
    inputs = {"model": last.model}
    inputs |= {f"covariance {n}": part.manifest.fingerprint for n, part in enumerate(parts, 1)}
    sources = {"model": last.manifest.sources.get("model", "")}
    sources |= {f"covariance {n}": str(part.folder) for n, part in enumerate(parts, 1)}
    label = " + ".join(
        p.label if w == 1 else f"{w:g} x {p.label}" for w, p in zip(shares, parts, strict=True)
    )
    facts = {
        "label": label,
        "tokens": sum(int(p.manifest.facts.get("tokens", 0)) for p in parts),
        "left_out": sorted({s.name for part in parts for s in part.sites} - {s.name for s in common}),
    }
    manifest = Manifest(KIND, settings, inputs, sources, facts=facts)
    with claimed(out, manifest, restart=restart) as state:
        if state == "done":
            return Covariance(out)
        layers = sorted({s.layer for s in common})
        for done, layer in enumerate(layers, 1):
            if not shard(out, layer).exists():
                _sum_layer([s for s in common if s.layer == layer], parts, shares, layer, out)
            progress("combine", done, len(layers), f"layer {layer}")
        sites = [s.to_json() for n in layers for s in read_sites(shard(out, n))]
        manifest.finished(sites=sites).write(out)
        return Covariance(out)


def _last_of_chain(parts: list[Covariance]) -> Covariance:
    last = max(parts, key=lambda p: len(p.lineage.chain))
    for part in parts:
        same = part.model == last.model
        if not same and not part.lineage.leads_to(last.lineage):
            raise DataError(
                f"{part.folder} is of another model than {last.folder}",
                hint="sums run along one base and the adapters merged into it in turn",
            )
        part.check_reads(last.reads)
    return last


def _common(parts: list[Covariance]) -> list[Site]:
    """The sites that every part holds: an adapter made from the sum touches no others.

    Raises:
        DataError: a site of one name is another input elsewhere, or none is common.
    """
    held = [{s.name: s for s in part.sites} for part in parts]
    common = [s for s in parts[0].sites if all(s.name in each for each in held)]
    for site in common:
        for part, each in zip(parts, held, strict=True):
            other = each[site.name]
            if (other.d_in, other.linears) != (site.d_in, site.linears):
                raise DataError(f"{part.folder} and {parts[0].folder} mean different inputs", where=site.name)
    if not common:
        raise DataError("these covariances have no site in common", where=str(parts[0].folder))
    return common


def _sum_layer(
    common: list[Site], parts: list[Covariance], shares: list[float], layer: int, out: Path
) -> None:
    matrices, sites = {}, []
    for site in common:
        total = torch.zeros(site.d_in * (site.d_in + 1) // 2, dtype=torch.float64)
        tokens = 0
        for part, share in zip(parts, shares, strict=True):
            own = part.site_of(site.linears[0])
            total.add_(part.packed(own).double(), alpha=share)
            tokens += own.tokens
        matrices[site.site] = total
        sites.append(
            Site.measure(
                total, layer=layer, site=site.site, linears=list(site.linears), d_in=site.d_in, tokens=tokens
            )
        )
    write_shard(out, layer, matrices, sites)
