"""What a covariance captures: W rebuilt without its smallest components (paper, figure 4 and table 8).

A method is the SVD of W S with a scaling S of the inputs, cut, and undone by S^-1:

    plain       S = 1
    asvd        S = diag(C)^(1/2), the size of each input channel's activation
    cosvd       S = C, the paper's
    cosvd-root  S = C^(1/2), the best of its rank: it minimises ||(W - W') X||_F, X the inputs of C = X X^T

Neither S^-1 nor a root is formed. If W S = L Sigma R^T is cut to the columns L_k, then
W' S = L_k L_k^T W S, so W' = L_k L_k^T W = W - D D^T W with D the dropped columns of L; and those are
eigenvectors of W S^2 W^T, for which S^2 = 1, diag C, C^2 or C is enough. A tall W is first reduced by QR
to its own column space. So the cut is exact even where C is singular, and a W that loses nothing comes back
bit for bit.

In the two CO-SVDs a share of C's mean diagonal is added to it, so that directions which no sample reached
are ranked by W alone. For cosvd it is a hundredth, as in the reference, which keeps every eigenvalue of
W C^2 W^T that matters within float64; for cosvd-root it is so small that the optimum stays one. The guarantee
of cosvd-root against plain outlives any damping: were its error on X the larger one, plain, whose
||W - W'||_F is the smallest of all, would be better on the damped sum too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from kore.errors import DataError, UsageError

Method = Literal["plain", "asvd", "cosvd", "cosvd-root"]
METHODS: tuple[Method, ...] = get_args(Method)
DAMPING = MappingProxyType({"cosvd": 1e-2, "cosvd-root": 1e-8})  # times the mean of C's diagonal


@dataclass(frozen=True)
class Drop:
    """How many components go: a number, or a share of what each linear has (min(d_out, d_in))."""

    text: str

    def of(self, linear: str, shape: Sequence[int]) -> int:
        """The number for one linear.

        Raises:
            UsageError: it has no more than that; names the linear.
        """
        have = min(shape)
        count = round(have * float(self.text[:-1]) / 100) if self.text.endswith("%") else int(self.text)
        if count >= have:
            raise UsageError(
                f"--components {self.text} leaves nothing of {linear}: it has {have}",
                hint="smaller numbers, or shares such as 25%",
            )
        return count


def parse_drops(text: str) -> list[Drop]:
    """Read ``32,64`` or ``10%,25%``.

    Raises:
        UsageError: not numbers of at least 1 or shares between 0 and 100 %, or one of them twice.
    """
    drops = [Drop(part.strip()) for part in text.split(",")]
    for drop in drops:
        number, share = drop.text.removesuffix("%"), drop.text.endswith("%")
        try:
            fits = 0 < float(number) < 100 if share else int(number) >= 1
        except ValueError:
            fits = False
        if not fits:
            raise UsageError(
                f"--components: {drop.text!r} is not a number of components",
                hint="--components 32,64 or 10%,25%",
            )
    if len(set(drops)) < len(drops):
        raise UsageError(f"--components: {text} names one twice")
    return drops


def parse_methods(text: str) -> list[Method]:
    """Read ``plain,asvd,cosvd``.

    Raises:
        UsageError: an unknown one, or one of them twice.
    """
    names = [part.strip() for part in text.split(",")]
    for name in names:
        if name not in METHODS:
            raise UsageError(f"--methods: no such decomposition: {name}", hint=", ".join(METHODS))
    if len(set(names)) < len(names):
        raise UsageError(f"--methods: {text} names one twice")
    return cast("list[Method]", names)


def smallest(
    weight: Tensor, method: Method, count: int, c: Tensor | None = None, *, name: str = ""
) -> Tensor:
    """The left singular vectors of W S that belong to its `count` smallest singular values.

    Args:
        weight: W, (d_out, d_in), any floating type.
        c: the covariance, (d_in, d_in) float64; not looked at by plain.

    Returns:
        D, (d_out, count) float64, orthonormal columns within W's column space, smallest first.

    Raises:
        DataError: nan or infinity in W, or W and C do not fit; names the linear.
    """
    w = weight.double()
    if not bool(torch.isfinite(w).all()):
        raise DataError("the weight holds nan or infinity", where=name or None)
    if c is not None and c.shape[0] != w.shape[1]:
        raise DataError(f"the weight is {tuple(w.shape)}, C {tuple(c.shape)}", where=name or None)
    axes: Tensor | None = None
    if w.shape[0] > w.shape[1]:
        axes, w = torch.linalg.qr(w)
    if method == "plain":
        gram = w @ w.T
    else:
        assert c is not None, f"{method} needs a covariance"
        if method == "asvd":
            gram = (w * c.diagonal()) @ w.T
        else:
            seen = w @ c + DAMPING[method] * c.diagonal().mean() * w
            gram = seen @ (seen if method == "cosvd" else w).T
    _, vectors = torch.linalg.eigh((gram + gram.T) / 2)
    chosen: Tensor = vectors[:, :count]
    return chosen if axes is None else axes @ chosen


def rebuild(weight: Tensor, dropped: Tensor) -> Tensor:
    """W' = W - D D^T W, (d_out, d_in) in W's own type, from D (d_out, k)."""
    if not dropped.shape[1]:
        return weight
    d, w = dropped.double(), weight.double()
    return (w - d @ (d.T @ w)).to(weight.dtype)


def lost(weight: Tensor, dropped: Tensor, c: Tensor) -> Tensor:
    """||(W - W') X||_F^2 / ||W X||_F^2 without the first 1, 2, ... columns of D, (k,) float64."""
    w, d = weight.double(), dropped.double()
    part = d.T @ w  # (k, d_in)
    whole = float(((w @ c) * w).sum())
    energy = ((part @ c) * part).sum(dim=1).clamp_min(0).cumsum(dim=0)
    return energy / whole if whole > 0 else torch.zeros_like(energy)
