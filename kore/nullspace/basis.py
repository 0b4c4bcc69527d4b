"""The near-null space of a covariance, and the adapter that lives in it (paper, 4.2.2 and appendix C).

With U the r eigenvectors of the smallest eigenvalues of C, the paper factorises W0 P, P = U U^T. Neither
P nor any SVD of size d_out x d_in is needed: W0 P = M U^T with M = W0 U (d_out, r), and if M = L S Q^T
is M's thin SVD then W0 P = L S (U Q)^T, so B0 = L sqrt(S) and A = sqrt(S) (U Q)^T.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kore.errors import DataError
from kore.nullspace.eigensolvers import solve

INDEFINITE = 1e-6  # times ||C||_F: below minus this, C is no sum of squares
TIED = 1e-12  # times ||C||_F: eigenvalues this close are one
_STRIPE = 512


@dataclass(frozen=True)
class NullBasis:
    """The directions that carry least energy.

    Attributes:
        vectors: (d_in, r) float64, orthonormal columns, smallest energy first.
        values: (r,) float64, their eigenvalues; rounding below zero is set to zero.
        solver: exact or fast.
        residual: largest ||C u - lambda u|| over ||C||_F.
        orthonormality: largest entry of |U^T U - 1|.
        energy_left: share of the old inputs' energy in these directions, tr(U^T C U) / tr C.
    """

    vectors: Tensor
    values: Tensor
    solver: str
    residual: float
    orthonormality: float
    energy_left: float


@dataclass(frozen=True)
class Factors:
    """W0 P = B0 A, the best rank-r form.

    Attributes:
        a: (r, d_in) float64, rows by falling singular value.
        b0: (d_out, r) float64.
        singular: (r,) float64.
    """

    a: Tensor
    b0: Tensor
    singular: Tensor


def check(c: Tensor, name: str = "") -> None:
    """Refuse what is no covariance.

    Raises:
        DataError: not square, nan, infinity, or not symmetric; names the site.
    """
    where = name or None
    if c.dim() != 2 or c.shape[0] != c.shape[1]:
        raise DataError(f"a covariance is square, this is {tuple(c.shape)}", where=where)
    if not bool(torch.isfinite(c).all()):
        raise DataError("the covariance holds nan or infinity", where=where)
    largest = max(float(c.max()), -float(c.min()))
    # in stripes: a copy of a wide C is a gigabyte
    if any(
        float((c[i : i + _STRIPE] - c[:, i : i + _STRIPE].T).abs().max()) > 1e-9 * largest
        for i in range(0, len(c), _STRIPE)
    ):
        raise DataError("the covariance is not symmetric", where=where)


def check_rank(rank: int, d_in: int, name: str = "") -> None:
    """Refuse a rank that is not a number of directions.

    Raises:
        DataError: r < 1 or r > d_in; names the site.
    """
    if not 1 <= rank <= d_in:
        raise DataError(f"rank {rank} does not fit {d_in} inputs", where=name or None)


def refuse_indefinite(smallest: float, size: float, name: str = "") -> None:
    """Refuse a matrix with an eigenvalue that is negative beyond rounding.

    Args:
        smallest: its smallest eigenvalue. size: its Frobenius norm.

    Raises:
        DataError: names the site.
    """
    if smallest < -INDEFINITE * size:
        raise DataError(
            f"the covariance is indefinite: smallest eigenvalue {smallest:.3g}, norm {size:.3g}",
            where=name or None,
            hint="it was summed in too low a precision; calibrate again with calibrate.accumulate=float64",
        )


def null_basis(c: Tensor, rank: int, *, solver: str = "exact", name: str = "") -> NullBasis:
    """The r eigenvectors of the smallest eigenvalues, deterministic in sign and among ties.

    Args:
        c: (d_in, d_in) symmetric, positive semi-definite up to rounding.
        rank: r.
        solver: exact (LAPACK's selected eigenvectors), fast (a Krylov space of the inverse), or auto.

    Raises:
        DataError: r > d_in, or C is not finite, not symmetric, or indefinite; names the site.
    """
    check(c, name)
    d = c.shape[0]
    check_rank(rank, d, name)
    c = c.double()
    size = float(c.norm())
    values, vectors, used = solve(c, rank, solver, tied=TIED * size)
    refuse_indefinite(float(values[0]), size, name)
    vectors = fix_signs(vectors)
    trace = float(c.diagonal().sum())
    energy = float((vectors * (c @ vectors)).sum())
    return NullBasis(
        vectors,
        values.clamp_min(0),
        used,
        residual=float((c @ vectors - vectors * values).norm(dim=0).max()) / size if size else 0.0,
        orthonormality=float(
            (vectors.T @ vectors - torch.eye(rank, dtype=c.dtype, device=c.device)).abs().max()
        ),
        energy_left=max(energy, 0.0) / trace if trace else 0.0,
    )


def fix_signs(vectors: Tensor) -> Tensor:
    """Columns with their largest entry (the first, among equals) positive."""
    signs = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True)).sign()
    return vectors * torch.where(signs == 0, torch.ones_like(signs), signs)


def adapter_factors(weight: Tensor, vectors: Tensor, *, name: str = "") -> Factors:
    """A and B0 of a linear from its null basis.

    Args:
        weight: W0, (d_out, d_in), any floating type.
        vectors: U, (d_in, r).

    Raises:
        DataError: nan or infinity in W0, r > d_out, or W0 and U do not fit; names the linear.
    """
    where = name or None
    if weight.dim() != 2 or weight.shape[1] != vectors.shape[0]:
        raise DataError(f"the weight is {tuple(weight.shape)}, the basis {tuple(vectors.shape)}", where=where)
    rank = vectors.shape[1]
    if rank > weight.shape[0]:
        raise DataError(f"rank {rank} does not fit {weight.shape[0]} outputs", where=where)
    m = weight.to(vectors.device, torch.float64) @ vectors
    if not bool(torch.isfinite(m).all()):
        raise DataError("the weight holds nan or infinity", where=where)
    left, singular, right = torch.linalg.svd(m, full_matrices=False)
    rows = right @ vectors.T  # (r, d_in)
    signs = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True)).sign()
    signs = torch.where(signs == 0, torch.ones_like(signs), signs)
    root = singular.sqrt()
    return Factors(root[:, None] * (rows * signs), (left * signs.T) * root, singular)
