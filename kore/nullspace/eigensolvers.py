"""Eigenvectors of the smallest eigenvalues of a symmetric matrix: exact, or fast for large ones."""

from __future__ import annotations

import torch
from torch import Tensor

LARGE = 6144  # above this width `auto` is fast on a CPU
_STEPS = 10  # blocks of the Krylov space, of half the rank each
_GUARD = 16  # extra columns of a block
_SEED = 20_240_229


def fastest(matrix: Tensor) -> Tensor:
    """The matrix where its eigenvalues come soonest: on the GPU if there is one."""
    return matrix.cuda() if torch.cuda.is_available() else matrix


def solve(c: Tensor, rank: int, solver: str, *, tied: float) -> tuple[Tensor, Tensor, str]:
    """Values (r,) ascending, vectors (d, r), and the solver that was used, with the reason if it is not the
    requested one.

    Args:
        c: (d, d) float64.
        solver: exact, fast, or auto (exact on a GPU and up to a width of 6144).
        tied: eigenvalues closer than this are one; among their eigenvectors the choice is made by
            projecting a fixed random block, so that it depends neither on LAPACK nor on threads.
    """
    d = c.shape[0]
    if solver == "auto":
        solver = "fast" if d > LARGE and c.device.type == "cpu" else "exact"
    used = "exact"
    if solver == "fast" and _STEPS * _columns(rank) < d:
        if (found := _krylov(c, rank)) is not None:
            return *found, "fast"
        used = "exact (fast failed: no Cholesky factor in float32)"
    values, vectors = _exact(c, rank, tied)
    return values, vectors, used


def _exact(c: Tensor, rank: int, tied: float) -> tuple[Tensor, Tensor]:
    d = c.shape[0]
    if c.device.type != "cpu" or rank + 1 >= d // 2:
        values, vectors = torch.linalg.eigh(c)
    else:
        values, vectors = _selected(c, rank + 1)
    if rank < d and float(values[rank] - values[rank - 1]) <= tied:
        if vectors.shape[1] < d:
            values, vectors = torch.linalg.eigh(c)
        vectors = _settle_tie(values, vectors, rank, tied)
    return values[:rank].clone(), vectors[:, :rank].clone()


def _selected(c: Tensor, count: int) -> tuple[Tensor, Tensor]:
    from scipy.linalg import eigh

    values, vectors = eigh(c.numpy(), subset_by_index=[0, count - 1], driver="evr", check_finite=False)
    return torch.from_numpy(values), torch.from_numpy(vectors).contiguous()


def _settle_tie(values: Tensor, vectors: Tensor, rank: int, tied: float) -> Tensor:
    """Choose among equal eigenvalues across the cut at `rank` by a fixed block."""
    edge = float(values[rank - 1])
    group = ((values - edge).abs() <= tied).nonzero().flatten()
    first, last = int(group[0]), int(group[-1]) + 1
    space = vectors[:, first:last]  # (d, g)
    block = _fixed_block(vectors.shape[0], rank - first).to(vectors.device)
    chosen, upper = torch.linalg.qr(space @ (space.T @ block))
    chosen = chosen * torch.where(upper.diagonal() < 0, -1.0, 1.0)
    return torch.cat([vectors[:, :first], chosen, vectors[:, last:]], dim=1)


def _fixed_block(rows: int, columns: int) -> Tensor:
    generator = torch.Generator().manual_seed(_SEED)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64)


def _columns(rank: int) -> int:
    """Columns of one block of the Krylov space."""
    return -(-rank // 2) + _GUARD


def _krylov(c: Tensor, rank: int) -> tuple[Tensor, Tensor] | None:
    """Rayleigh-Ritz in a block Krylov space of (C + shift)^-1, from a fixed block.

    The small end of a covariance's spectrum is flat, and subspace iteration separates flat ends slowly;
    the Krylov space of the same solves holds all of its polynomials at once. Factorisation and solves
    run in float32: they only have to turn the blocks towards the small eigenvalues. Orthonormality,
    values and the choice of directions come from float64. None: C cannot be factorised.
    """
    d, columns = c.shape[0], _columns(rank)
    # equilibrate: outlier channels would otherwise drown the small directions in float32
    scale = c.diagonal().clamp_min(float(c.diagonal().mean()) * 1e-12).rsqrt()[:, None]
    factor = _factorise(c, scale)
    if factor is None:
        return None
    space = torch.empty(d, 0, dtype=c.dtype, device=c.device)
    block = _fixed_block(d, columns).to(c.device)
    for _ in range(_STEPS):
        block = scale * torch.cholesky_solve((scale * block).float(), factor).double()
        for _ in range(2):  # twice is enough to be orthogonal to rounding
            block, _ = torch.linalg.qr(block - space @ (space.T @ block))
        space = torch.cat([space, block], dim=1)
    values, rotation = torch.linalg.eigh(space.T @ (c @ space))
    return values[:rank].clone(), space @ rotation[:, :rank]


def _factorise(c: Tensor, scale: Tensor) -> Tensor | None:
    """Cholesky factor of the equilibrated C in float32, with the smallest shift (at most 1) that works."""
    balanced = (c * scale).mul_(scale.T).float()
    shift = 1e-7
    while shift <= 1:
        balanced.diagonal().add_(shift)
        factor, failed = torch.linalg.cholesky_ex(balanced)
        if int(failed) == 0 and bool(torch.isfinite(factor).all()):
            return torch.as_tensor(factor)
        shift *= 10
    return None
