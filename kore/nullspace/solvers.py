"""Eigenvectors of the smallest eigenvalues of a symmetric matrix: exact, or fast for large ones."""

from __future__ import annotations

import torch
from torch import Tensor

LARGE = 6144  # above this width `auto` is fast on a CPU
_GUARD = 32  # extra columns that keep the wanted ones converging
_STEPS = 4
_SEED = 20_240_229


def fastest(matrix: Tensor) -> Tensor:
    """The matrix where its eigenvalues come soonest: on the GPU if there is one."""
    return matrix.cuda() if torch.cuda.is_available() else matrix


def solve(c: Tensor, rank: int, solver: str, *, tied: float) -> tuple[Tensor, Tensor, str]:
    """Values (r,) ascending, vectors (d, r), and the solver that was used.

    Args:
        c: (d, d) float64.
        solver: exact, fast, or auto (exact on a GPU and up to a width of 6144).
        tied: eigenvalues closer than this are one; among their eigenvectors the choice is made by
            projecting a fixed random block, so that it depends neither on LAPACK nor on threads.
    """
    d = c.shape[0]
    if solver == "auto":
        solver = "fast" if d > LARGE and c.device.type == "cpu" else "exact"
    if solver == "fast" and rank + _GUARD < d // 2:
        values, vectors = _inverse_iteration(c, rank)
        return values, vectors, "fast"
    values, vectors = _exact(c, rank, tied)
    return values, vectors, "exact"


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


def _inverse_iteration(c: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Subspace iteration with (C + shift)^-1 from a fixed block, then Rayleigh-Ritz in float64.

    The factorisation and the iteration run in float32: they only have to turn the block towards the
    small eigenvalues; values and orthonormality come from the float64 projection at the end.
    """
    d = c.shape[0]
    columns = min(rank + _GUARD, d)
    # equilibrate: outlier channels would otherwise drown the small directions in float32
    scale = c.diagonal().clamp_min(float(c.diagonal().mean()) * 1e-12).rsqrt()
    factor = _factorise(c, scale)
    block = _fixed_block(d, columns).to(c.device)
    for _ in range(_STEPS):
        solved = torch.cholesky_solve((scale[:, None] * block).float(), factor).double()
        block, _ = torch.linalg.qr(scale[:, None] * solved)
    values, rotation = torch.linalg.eigh(block.T @ (c @ block))
    return values[:rank].clone(), (block @ rotation)[:, :rank].clone()


def _factorise(c: Tensor, scale: Tensor) -> Tensor:
    """Cholesky factor of the equilibrated C in float32, with the smallest shift that works."""
    balanced = (scale[:, None] * c * scale).float()
    shift = 1e-7
    while True:
        balanced.diagonal().add_(shift)
        factor, failed = torch.linalg.cholesky_ex(balanced)
        if int(failed) == 0 or shift > 1:
            return torch.as_tensor(factor)
        shift *= 10
