"""An extension of the paper's basis: among what the old inputs barely use, what the new ones need.

The paper takes the r directions of least old energy, whatever the new samples are. Here directions are
ranked by new energy against old energy, a generalised eigenproblem
    C_new v = mu (C_old + d)^p v,    p = (1 - s) / s,
with strength s between the two ends: s -> 0 weighs old energy ever harder (the paper's basis), s = 1/2
is the plain ratio, s = 1 looks at the new samples alone. d is the largest old eigenvalue that the
paper's own choice of r directions contains: what lies below it counts as equally harmless.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kore.errors import DataError
from kore.nullspace.basis import NullBasis, check, check_rank, fix_signs, null_basis, refuse_indefinite

WEAKEST = 0.02  # with s below 1/53 the weights of the r directions span more than float64's precision


def contrast_basis(
    old: Tensor, new: Tensor, rank: int, strength: float, *, solver: str = "exact", name: str = ""
) -> NullBasis:
    """Directions of much new and little old energy.

    Args:
        old: C_old, (d, d). new: C_new, (d, d), same inputs.
        rank: r.
        strength: s, 0 (the paper's basis) or from 0.02 to 1.
        solver: for the paper's basis.

    Returns:
        The basis, orthonormal; its energies are those in C_old, its residual the eigenproblem's.

    Raises:
        DataError: as `null_basis`; the two differ in size; or s is above 0 but too small for float64.
    """
    if strength <= 0:
        return null_basis(old, rank, solver=solver, name=name)
    if strength < WEAKEST:
        raise DataError(
            f"contrast {strength:g} is too weak to compute in float64",
            where=name or None,
            hint=f"set adapter.contrast to 0 for the paper's basis, or to at least {WEAKEST:g}",
        )
    check(new, name)
    if old.shape != new.shape:
        raise DataError(f"old inputs have width {old.shape[0]}, new ones {new.shape[0]}", where=name or None)
    check(old, name)
    check_rank(rank, old.shape[0], name)
    values, axes = torch.linalg.eigh(old.double())
    refuse_indefinite(float(values[0]), float(values.norm()), name)
    values = values.clamp_min(0)
    floor = values[rank - 1].clamp_min(1e-12 * float(values[-1]))
    # (C_old + d)^(-p/2), scaled to 1 at the least old energy; at d's own index at least 2^(-p/2)
    weight = ((values + floor) / (values[0] + floor)).pow(-(1 - strength) / (2 * strength))
    inner = weight[:, None] * (axes.T @ new.double() @ axes) * weight
    ratios, best = torch.linalg.eigh(inner)
    ratios, best = ratios.flip(0)[:rank], best.flip(1)[:, :rank]
    residual = float((inner @ best - best * ratios).norm(dim=0).max())
    vectors, _ = torch.linalg.qr(axes @ (weight[:, None] * best))
    # smallest old energy first, as in the paper's basis
    energies, rotation = torch.linalg.eigh(vectors.T @ old.double() @ vectors)
    vectors = fix_signs(vectors @ rotation)
    identity = torch.eye(rank, dtype=vectors.dtype, device=vectors.device)
    return NullBasis(
        vectors,
        energies.clamp_min(0),
        f"contrast {strength:g}",
        residual=residual / max(float(inner.norm()), 1e-300),
        orthonormality=float((vectors.T @ vectors - identity).abs().max()),
        energy_left=float(energies.clamp_min(0).sum() / values.sum()),
    )
