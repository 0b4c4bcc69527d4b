"""The running sum C = X X^T over tokens: single-precision products, double-precision sum.

Sums in float16 or bfloat16 lose the small eigenvalues entirely, and float32 sums lose those below
1e-8 of the largest; a double sum of single products keeps them at almost no cost
(docs/architecture.md, numerics).
"""

from __future__ import annotations

import torch
from torch import Tensor

from kore.distributed import sum_in_place, sum_over_ranks
from kore.errors import DataError

CHUNK = 8192  # tokens per product
STRIPE = 512  # rows of the sum per product


def values_held(d_in: int) -> int:
    """Values that the running sum of width `d_in` holds: the upper triangle in stripes."""
    return sum(min(STRIPE, d_in - start) * (d_in - start) for start in range(0, d_in, STRIPE))


class Accumulator:
    """Sums x^T x over the rows of many (n, d) blocks.

    Only the upper triangle is computed and held, in stripes of rows from the diagonal to the right:
    half the products and half the memory of the whole matrix.

    Args:
        d_in: width d of the inputs.
        dtype: type of the sum, float64 unless asked otherwise.
        device: where the sum lives; the CPU instead of MPS, which has no float64.

    Attributes:
        tokens: how many rows were added.
    """

    def __init__(
        self, d_in: int, *, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
    ) -> None:
        self.d_in = d_in
        self.tokens = 0
        if torch.device(device).type == "mps":
            device = "cpu"
        self._starts = range(0, d_in, STRIPE)
        self._stripes = [
            torch.zeros(min(STRIPE, d_in - start), d_in - start, dtype=dtype, device=device)
            for start in self._starts
        ]

    def add(self, rows: Tensor) -> None:
        """Add the rows of `rows`, (n, d_in).

        Float64 rows are multiplied in float64; any other type in float32.

        Raises:
            DataError: nan or infinity among them.
        """
        if rows.shape[0] == 0:
            return
        wanted = torch.float64 if rows.dtype == torch.float64 else torch.float32
        rows = rows.detach().to(self._stripes[0].device, wanted)
        for first in range(0, len(rows), CHUNK):
            chunk = rows[first : first + CHUNK].contiguous()
            if not bool(torch.isfinite(chunk).all()):
                raise DataError("an activation is nan or infinite")
            for start, stripe in zip(self._starts, self._stripes, strict=True):
                stripe.add_(chunk[:, start : start + len(stripe)].T @ chunk[:, start:])
        self.tokens += rows.shape[0]

    def reduce(self) -> None:
        """Sum over all ranks."""
        for stripe in self._stripes:
            sum_in_place(stripe)
        self.tokens = int(sum_over_ranks([self.tokens])[0])

    def packed(self) -> Tensor:
        """The upper triangle, row by row, d (d + 1) / 2 values, on the CPU."""
        flat = torch.empty(self.d_in * (self.d_in + 1) // 2, dtype=self._stripes[0].dtype)
        end = 0
        for stripe in self._stripes:
            for index, row in enumerate(stripe.cpu()):
                begin, end = end, end + len(row) - index
                flat[begin:end] = row[index:]
        return flat


def unpack(flat: Tensor, d: int) -> Tensor:
    """The symmetric (d, d) matrix of a packed upper triangle.

    Raises:
        DataError: the length does not fit d.
    """
    if flat.numel() != d * (d + 1) // 2:
        raise DataError(f"{flat.numel()} values are no triangle of width {d}")
    matrix = torch.empty(d, d, dtype=flat.dtype)
    end = 0
    for row in range(d):
        begin, end = end, end + d - row
        matrix[row, row:] = flat[begin:end]
    for start in range(0, d, STRIPE):  # the other half block by block: column by column would crawl
        stop = min(start + STRIPE, d)
        corner = matrix[start:stop, start:stop].triu()
        matrix[start:stop, start:stop] = corner + corner.triu(1).T
        matrix[stop:, start:stop] = matrix[start:stop, stop:].T
    return matrix
