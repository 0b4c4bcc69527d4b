"""What `kore show` tells of a covariance folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from kore.io.files import read_json
from kore.nullspace.covariance import Covariance, Site
from kore.nullspace.eigensolvers import fastest

_WHOLE = 2048  # wider sites are described without their smallest eigenvalues, unless a rank is asked for


def report(folder: Path, rank: int | None = None) -> dict[str, Any]:
    """Every site with its numbers, warnings, and the interference if it was measured.

    Args:
        rank: count the energy in this many of the smallest directions, however wide the site; default:
            the rank that the folder's spectra mark, else a sixteenth of each width.
    """
    covariance = Covariance(folder)
    marked = _marked(folder)
    sites = []
    for site in covariance.sites:
        known = marked.get(site.name, {})
        own = min(rank or known.get("rank") or max(site.d_in // 16, 1), site.d_in)
        kept = known if rank is None else {}
        sites.append(_describe(covariance, site, own, kept, rank is not None))
    few = [s for s in sites if s["warning"]]
    warnings = []
    if few:
        warnings.append(
            f"{len(few)} of {len(sites)} sites saw fewer tokens than they are wide (first {few[0]['site']}): "
            "their null space is exact only for these samples; calibrate on more"
        )
    short = [s for s in sites if s["energy_smallest"] is None]
    if short:
        warnings.append(
            f"{len(short)} sites are wider than {_WHOLE:,}: their smallest eigenvalues take minutes each "
            "without a GPU; --rank R asks for them"
        )
    path = folder / "interference.json"
    return {
        "kind": "covariance",
        "folder": str(folder),
        "label": covariance.label,
        "model": covariance.model,
        "lineage": list(covariance.lineage.chain),
        "tokens": max(s.tokens for s in covariance.sites),
        "settings": covariance.manifest.settings,
        "fingerprint": covariance.manifest.fingerprint,
        "sites": sites,
        "warnings": warnings,
        "interference": read_json(path) if path.is_file() else None,
    }


def _marked(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / "spectra.json"
    return {row["name"]: row for row in read_json(path)["sites"]} if path.is_file() else {}


def _describe(
    covariance: Covariance, site: Site, rank: int, known: dict[str, Any], whole: bool
) -> dict[str, Any]:
    smallest, condition = known.get("energy_left"), None
    if site.d_in <= _WHOLE or torch.cuda.is_available() or whole:
        values = torch.linalg.eigvalsh(fastest(covariance.matrix(site))).clamp_min(0)
        smallest = float(values[:rank].sum()) / site.trace if site.trace else 0.0
        condition = float(values[-1] / values[0]) if float(values[0]) > 0 else None
    return {
        "site": site.name,
        "d_in": site.d_in,
        "tokens": site.tokens,
        "trace": site.trace,
        "effective_rank": site.effective_rank,
        "rank": rank,
        "energy_smallest": smallest,
        "condition": condition,
        "warning": "few tokens" if site.tokens < site.d_in else None,
        "linears": list(site.linears),
    }
