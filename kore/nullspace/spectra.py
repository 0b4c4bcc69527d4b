"""Eigenvalue curves and small pictures of the covariances, for the dashboard and for people."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kore.io.files import write_json
from kore.nullspace.covariance import Covariance
from kore.nullspace.eigensolvers import fastest

if TYPE_CHECKING:
    from kore.config.resolve import AdapterSection

POINTS = 256
CELLS = 32
_WHOLE = 2048  # wider sites get the ends of their spectrum only
_TOP = 64


def write_spectra(
    covariance: Covariance,
    path: Path,
    section: AdapterSection,
    *,
    report: list[dict[str, Any]] | None = None,
    held_out: dict[str, float] | None = None,
) -> None:
    """Write the file that the dashboard draws.

    Args:
        section: for the rank that is marked in each curve, where there is no report.
        report: what `kore.nullspace.adapter_init.build` reported: rank and energy left per site.
        held_out: site's name -> share of held-out energy in the chosen directions.
    """
    known = {row["site"]: row for row in report or []}
    sites = []
    for site in covariance.sites:
        matrix = fastest(covariance.matrix(site))
        index, values, tail = spectrum(matrix)
        row = known.get(site.name, {})
        rank = row.get("rank")
        if rank is None and section.known_rank is not None and not section.budget:
            rank = min(section.known_rank, site.d_in)
        left = row.get("energy_left")
        if left is None and rank and tail is not None:
            left = float(tail[-rank:].sum()) / site.trace if site.trace else 0.0
        sites.append(
            {
                "name": site.name,
                "layer": site.layer,
                "site": site.site,
                "d_in": site.d_in,
                "tokens": site.tokens,
                "trace": site.trace,
                "effective_rank": site.effective_rank,
                "rank": rank,
                "energy_left": left,
                "held_out": (held_out or {}).get(site.name),
                "index": index,
                "eigenvalues": values,
                "heatmap": heatmap(matrix),
            }
        )
    write_json(path, {"label": covariance.label, "sites": sites})


def spectrum(matrix: Tensor) -> tuple[list[int], list[float], Tensor | None]:
    """Ranks (from 1) and eigenvalues, largest first, at most 256, dense at both ends.

    Sites wider than 2048 get their 64 largest values only: the whole spectrum would take minutes.

    Returns:
        Ranks, their values, and all values (descending) where they are known.
    """
    d = matrix.shape[0]
    if d > _WHOLE and matrix.device.type == "cpu":
        from scipy.sparse.linalg import eigsh

        first = torch.ones(d, dtype=matrix.dtype).numpy()
        top = eigsh(matrix.numpy(), k=_TOP, which="LA", return_eigenvectors=False, v0=first)
        values = torch.from_numpy(top.copy()).sort(descending=True).values
        whole = None
    else:
        values = whole = torch.linalg.eigvalsh(matrix).flip(0).clamp_min(0).cpu()
    count = len(values)
    steps = torch.logspace(0, math.log10(count), POINTS // 2).round().long().tolist()
    ranks = sorted(set(steps) | {count + 1 - n for n in steps})
    return ranks, [max(float(values[n - 1]), 0.0) for n in ranks], whole


def heatmap(matrix: Tensor, cells: int = CELLS) -> list[list[float]]:
    """|C| averaged over a coarse grid of at most `cells` x `cells`."""
    cells = min(cells, matrix.shape[0])
    parts = [torch.stack([b.mean(dim=1) for b in matrix.abs().tensor_split(cells, dim=1)], dim=1)]
    grid = torch.stack([block.mean(dim=0) for block in parts[0].tensor_split(cells, dim=0)])
    return [[float(f"{v:.4g}") for v in row] for row in grid.tolist()]
