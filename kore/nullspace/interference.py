"""How much an adapter can disturb old inputs that were not summed: the honest measure of the constraint.

For a B with orthonormal columns an adapter changes a linear's outputs by ||A X|| whatever B is, so
||A X|| / ||W0 X|| is the relative change of the outputs per unit of B, for inputs X. Both norms come
from the held-out covariance: ||A X||^2 = tr(A C A^T).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kore.nullspace.adapter_init import WeightOf
from kore.nullspace.covariance import Covariance

_SEED = 7


def interference(
    weight_of: WeightOf, a: Mapping[str, Tensor], held_out: Covariance, *, own: Covariance | None = None
) -> list[dict[str, Any]]:
    """Per linear: the relative change of its held-out outputs per unit of B.

    Args:
        a: KORE's A per linear.
        held_out: covariance of samples that are not in the one that A was made from.
        own: the covariance that A was made from, to show how far A fits it better than the held-out.

    Returns:
        Rows ``{site, linear, rank, kore, random, lora, energy, energy_own}``: the change for KORE's A, for a
        random A of the same norm, for LoRA's initial A; the share of the inputs' energy that the row
        space of A sees, held out and (if `own`) in the sums themselves.
    """
    rows = []
    for name, matrix in a.items():
        site = held_out.site_of(name)
        c = held_out.matrix(site)
        weight = weight_of(name).detach().cpu().double()
        rank, width = matrix.shape
        ours = matrix.double()
        generator = torch.Generator().manual_seed(_SEED)
        random = torch.randn(rank, width, generator=generator, dtype=torch.float64)
        random *= ours.norm() / random.norm()
        # PEFT's own initialisation: uniform within 1 / sqrt(d_in)
        lora = (2 * torch.rand(rank, width, generator=generator, dtype=torch.float64) - 1) / math.sqrt(width)
        output = max(_norm(weight, c), 1e-300)
        basis = torch.linalg.qr(ours.T)[0].T
        row = {
            "site": site.name,
            "linear": name,
            "rank": rank,
            "kore": _norm(ours, c) / output,
            "random": _norm(random, c) / output,
            "lora": _norm(lora, c) / output,
            "energy": _norm(basis, c) ** 2 / site.trace if site.trace else 0.0,
        }
        if own is not None:
            inside = own.site_of(name)
            row["energy_own"] = _norm(basis, own.matrix(inside)) ** 2 / inside.trace if inside.trace else 0.0
        rows.append(row)
    return rows


def _norm(matrix: Tensor, c: Tensor) -> float:
    """||M X||_F from C = X X^T."""
    return math.sqrt(max(float((matrix @ c * matrix).sum()), 0.0))


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Geometric means over linears: change by KORE's A, a random A, LoRA's A."""
    keys = ("kore", "random", "lora")
    return {k: math.exp(sum(math.log(max(r[k], 1e-300)) for r in rows) / len(rows)) for k in keys}
