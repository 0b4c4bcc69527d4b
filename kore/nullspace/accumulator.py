"""The running sum C = X X^T over tokens: single-precision products, double-precision sum.

Sums in float16 or bfloat16 lose the small eigenvalues entirely, and float32 sums lose those below
1e-8 of the largest; a double sum of single products keeps them at almost no cost
(docs/architecture.md, numerics).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kore.errors import DataError

CHUNK = 8192  # tokens per product
_BLOCKS = 4  # column blocks of the triangular product on a GPU

_WIDE = 1024  # below, half the work does not pay for waking a second library's threads


class Accumulator:
    """Sums x^T x over the rows of many (n, d) blocks.

    Args:
        d_in: width d of the inputs.
        dtype: type of the sum, float64 unless asked otherwise.
        device: where the sum lives.
        scratch: buffers for products, by width; share one dictionary among accumulators.

    Attributes:
        tokens: how many rows were added.
    """

    def __init__(
        self,
        d_in: int,
        *,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
        scratch: dict[tuple[int, torch.dtype], Any] | None = None,
    ) -> None:
        self.d_in = d_in
        self.tokens = 0
        self._upper = torch.zeros(d_in, d_in, dtype=dtype, device=device)
        self._scratch = {} if scratch is None else scratch

    def add(self, rows: Tensor) -> None:
        """Add the rows of `rows`, (n, d_in).

        Float64 rows are multiplied in float64; any other type in float32.

        Raises:
            DataError: nan or infinity among them.
        """
        if rows.shape[0] == 0:
            return
        wanted = torch.float64 if rows.dtype == torch.float64 else torch.float32
        rows = rows.detach().to(wanted)
        for first in range(0, len(rows), CHUNK):
            chunk = rows[first : first + CHUNK].contiguous()
            if not bool(torch.isfinite(chunk).all()):
                raise DataError("an activation is nan or infinite")
            self._add_chunk(chunk)
        self.tokens += rows.shape[0]

    def _add_chunk(self, chunk: Tensor) -> None:
        if chunk.device.type == "cpu" and self.d_in >= _WIDE:
            self._upper.add_(self._symmetric_product(chunk))
            return
        if self.d_in < _WIDE:
            self._upper.add_(chunk.T @ chunk)
            return
        step = -(-self.d_in // _BLOCKS)
        for start in range(0, self.d_in, step):
            stop = min(start + step, self.d_in)
            self._upper[start:stop, start:].add_(chunk[:, start:stop].T @ chunk[:, start:])

    def _symmetric_product(self, chunk: Tensor) -> Tensor:
        """The upper triangle of chunk^T chunk, at half the cost of the full product."""
        import numpy
        from scipy.linalg import blas

        key = (self.d_in, chunk.dtype)
        if key not in self._scratch:
            self._scratch[key] = numpy.zeros((self.d_in, self.d_in), chunk.numpy().dtype, order="F")
        # chunk is (n, d) in rows, so its transpose is (d, n) in columns, as BLAS wants it: no copy
        update = blas.ssyrk if chunk.dtype == torch.float32 else blas.dsyrk
        lower = update(1.0, chunk.numpy().T, beta=0.0, c=self._scratch[key], overwrite_c=1, lower=1)
        return torch.from_numpy(lower.T)

    def reduce(self) -> None:
        """Sum over all processes of a torch.distributed group, if there is one."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(self._upper)
            count = torch.tensor([self.tokens], dtype=torch.int64, device=self._upper.device)
            torch.distributed.all_reduce(count)
            self.tokens = int(count)

    def packed(self) -> Tensor:
        """The upper triangle, row by row, d (d + 1) / 2 values."""
        return pack(self._upper)

    def matrix(self) -> Tensor:
        """The whole symmetric matrix, (d, d)."""
        return unpack(self.packed(), self.d_in)


def pack(matrix: Tensor) -> Tensor:
    """The upper triangle of a symmetric (d, d) matrix as one row of d (d + 1) / 2 values, on the CPU."""
    d = matrix.shape[0]
    flat = torch.empty(d * (d + 1) // 2, dtype=matrix.dtype)
    start = 0
    for row in range(d):
        flat[start : start + d - row] = matrix[row, row:]
        start += d - row
    return flat


def unpack(flat: Tensor, d: int) -> Tensor:
    """The symmetric (d, d) matrix of a packed upper triangle.

    Raises:
        DataError: the length does not fit d.
    """
    if flat.numel() != d * (d + 1) // 2:
        raise DataError(f"{flat.numel()} values are no triangle of width {d}")
    matrix = torch.empty(d, d, dtype=flat.dtype)
    start = 0
    for row in range(d):
        part = flat[start : start + d - row]
        matrix[row, row:] = part
        matrix[row:, row] = part
        start += d - row
    return matrix
