"""The null basis and the factors: every stated property, in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kore.errors import DataError
from kore.nullspace.basis import adapter_factors, null_basis
from kore.nullspace.contrastive_basis import contrast_basis
from kore.nullspace.eigensolvers import solve


def spectrum(d: int, decay: float = 0.1, seed: int = 0) -> Tensor:
    """A covariance with eigenvalues exp(-decay i) in random directions, (d, d) float64."""
    return rotated(torch.exp(-decay * torch.arange(d).double()), seed)


def rotated(values: Tensor, seed: int = 0) -> Tensor:
    """A covariance with these eigenvalues in random directions."""
    axes, _ = torch.linalg.qr(random(len(values), len(values), seed=seed))
    return axes @ torch.diag(values) @ axes.T


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def symmetric(m: Tensor) -> Tensor:
    return (m + m.T) / 2


@settings(max_examples=20, deadline=None)
@given(d=st.integers(6, 40), rank=st.integers(1, 5), seed=st.integers(0, 99))
def test_factors_equal_the_papers_svd_of_the_projected_weight(d: int, rank: int, seed: int) -> None:
    c, w = symmetric(spectrum(d, seed=seed)), random(11, d, seed=seed)
    basis = null_basis(c, rank)
    made = adapter_factors(w, basis.vectors)
    projected = w @ basis.vectors @ basis.vectors.T
    s = torch.linalg.svdvals(projected)
    assert torch.allclose(made.b0 @ made.a, projected, atol=1e-12)
    assert torch.allclose(made.singular, s[:rank], atol=1e-12)
    assert torch.allclose(made.a @ made.a.T, torch.diag(s[:rank]), atol=1e-12)
    assert torch.allclose(made.b0.T @ made.b0, torch.diag(s[:rank]), atol=1e-12)


def test_a_annihilates_inputs_that_leave_a_null_space() -> None:
    x = random(20, 32)
    basis = null_basis(symmetric(x.T @ x), 8)
    made = adapter_factors(random(24, 32, seed=2), basis.vectors)
    assert (x @ made.a.T).abs().max() < 1e-12 * x.norm()
    assert basis.energy_left < 1e-15
    assert basis.residual < 1e-14
    assert basis.orthonormality < 1e-13


def test_the_smallest_directions_are_optimal() -> None:
    c = symmetric(spectrum(50))
    basis = null_basis(c, 6)
    assert torch.allclose(basis.values, torch.linalg.eigvalsh(c)[:6], atol=1e-15)
    other, _ = torch.linalg.qr(random(50, 6))
    assert basis.energy_left < float((other * (c @ other)).sum() / c.trace())


def test_signs_and_ties_are_the_same_for_any_rotation_that_leaves_c_alone() -> None:
    """A covariance of few tokens has a null space far wider than r: the choice in it is fixed."""
    x = random(10, 64)
    c = symmetric(x.T @ x)
    again = symmetric(x.flip(0).T @ x.flip(0))
    first, second = null_basis(c, 7), null_basis(again, 7)
    assert torch.allclose(first.vectors @ first.vectors.T, second.vectors @ second.vectors.T, atol=1e-9)
    largest = first.vectors.abs().argmax(dim=0)
    assert bool((first.vectors.gather(0, largest[None]) > 0).all())


@pytest.mark.parametrize("shape", ["steep", "flat", "flat with loud channels"])
def test_the_fast_solver_is_within_five_percent_of_the_optimum(shape: str) -> None:
    flat = torch.arange(1, 601, dtype=torch.float64) ** -1.0  # subspace iteration is 7 % off here
    c, rank = (
        (symmetric(spectrum(400, decay=0.03)), 40) if shape == "steep" else (symmetric(rotated(flat)), 24)
    )
    if "loud" in shape:
        gain = torch.ones(len(c), dtype=torch.float64)
        gain[::97] = 100
        c = gain[:, None] * c * gain
    best, fast = null_basis(c, rank, solver="exact"), null_basis(c, rank, solver="fast")
    assert fast.solver == "fast"
    assert fast.energy_left <= 1.05 * best.energy_left
    assert fast.orthonormality < 1e-12


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda c: c.index_put((torch.tensor(0), torch.tensor(0)), torch.tensor(float("nan")).double()),
            "nan",
        ),
        (lambda c: c - 0.5 * torch.eye(len(c), dtype=c.dtype), "indefinite"),
        (lambda c: c[:5], "square"),
        (lambda c: c + torch.triu(torch.ones_like(c), 1), "not symmetric"),
    ],
)
def test_what_is_no_covariance_is_refused_with_the_sites_name(spoil, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match=message) as caught:
        null_basis(spoil(symmetric(spectrum(12))), 3, name="layers.4.qkv")
    assert caught.value.where == "layers.4.qkv"


def test_ranks_that_do_not_fit_are_refused() -> None:
    c = symmetric(spectrum(12))
    with pytest.raises(DataError, match="rank 13 does not fit 12 inputs"):
        null_basis(c, 13, name="layers.0.o")
    with pytest.raises(DataError, match="rank 5 does not fit 4 outputs"):
        adapter_factors(random(4, 12), null_basis(c, 5).vectors, name="k_proj")
    with pytest.raises(DataError, match="nan or infinity"):
        adapter_factors(random(4, 12) / 0, null_basis(c, 3).vectors, name="k_proj")


def test_contrast_at_zero_is_the_papers_basis_and_at_one_the_new_samples_own() -> None:
    old, new = symmetric(spectrum(40, seed=3)), symmetric(spectrum(40, decay=0.3, seed=4))
    paper = null_basis(old, 5).vectors
    assert torch.equal(contrast_basis(old, new, 5, 0.0).vectors, paper)
    ours = contrast_basis(old, new, 5, 1.0).vectors
    top = torch.linalg.eigh(new)[1][:, -5:]
    assert torch.allclose(ours @ ours.T, top @ top.T, atol=1e-10)


def test_a_contrast_too_weak_for_float64_is_an_error_and_not_the_papers_basis() -> None:
    old, new = symmetric(spectrum(40, decay=0.5, seed=3)), symmetric(spectrum(40, decay=0.3, seed=4))
    paper = null_basis(old, 8)
    for strength in (1e-320, 1e-4, 1e-3, 4e-3, 0.0199):
        with pytest.raises(DataError, match=r"contrast .* is too weak") as caught:
            contrast_basis(old, new, 8, strength, name="layers.2.o")
        assert caught.value.where == "layers.2.o" and "at least 0.02" in str(caught.value.hint)
    weakest = contrast_basis(old, new, 8, 0.02)
    assert weakest.solver == "contrast 0.02" and weakest.energy_left < 1.01 * paper.energy_left
    wide = symmetric(spectrum(400, decay=0.03, seed=3))
    assert contrast_basis(wide, wide, 8, 0.0, solver="fast").solver == "fast"


@pytest.mark.parametrize("matrix", [torch.zeros(400, 400), -torch.eye(400)])
def test_a_matrix_without_a_cholesky_factor_goes_to_the_exact_solver_which_the_report_says(
    matrix: Tensor,
) -> None:
    values, vectors, used = solve(matrix.double(), 8, "fast", tied=1e-12)
    assert used == "exact (fast failed: no Cholesky factor in float32)"
    assert torch.equal(values, matrix.double().diagonal()[:8])
    assert torch.allclose(vectors.T @ vectors, torch.eye(8).double(), atol=1e-12)


def test_contrast_trades_old_energy_for_new_energy_monotonically() -> None:
    old, new = symmetric(spectrum(60, seed=3)), symmetric(spectrum(60, decay=0.2, seed=4))

    def energy(c: Tensor, u: Tensor) -> float:
        return float((u * (c @ u)).sum() / c.trace())

    bases = [contrast_basis(old, new, 6, s).vectors for s in (0.0, 0.3, 0.5, 0.7, 1.0)]
    olds, news = [energy(old, u) for u in bases], [energy(new, u) for u in bases]
    assert olds == sorted(olds)
    assert news == sorted(news)


def test_contrast_tells_what_it_reached_and_refuses_what_the_papers_basis_refuses() -> None:
    old, new = symmetric(spectrum(40, seed=3)), symmetric(spectrum(40, decay=0.3, seed=4))
    made = contrast_basis(old, new, 5, 0.5)
    assert made.solver == "contrast 0.5"
    assert 0 < made.residual < 1e-12 and made.orthonormality < 1e-12
    for bad, rank, message in ((old - torch.eye(40).double(), 5, "indefinite"), (old, 41, "rank 41")):
        with pytest.raises(DataError, match=message) as caught:
            contrast_basis(bad, new, rank, 0.5, name="layers.2.o")
        assert caught.value.where == "layers.2.o"


class Net(nn.Module):
    """One linear with either form of the adapter between two fixed ones, float64."""

    def __init__(self, residual: bool, a: Tensor, b0: Tensor) -> None:
        super().__init__()
        w = random(16, 24, seed=5)
        self.first, self.last = random(24, 12, seed=6) / 4, random(3, 16, seed=7) / 4
        self.a = a
        self.w = w - b0 @ a if residual else w
        self.b = nn.Parameter(b0.clone() if residual else torch.zeros_like(b0))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(x @ self.first.T)
        return torch.tanh(h @ self.w.T + (h @ self.a.T) @ self.b.T) @ self.last.T


def test_residual_and_zero_form_take_the_same_path_over_fifty_adamw_steps() -> None:
    w = random(16, 24, seed=5)
    made = adapter_factors(w, null_basis(symmetric(spectrum(24)), 4).vectors)
    nets = [Net(residual, made.a, made.b0) for residual in (True, False)]
    x, y = random(64, 12, seed=8), random(64, 3, seed=9)
    at_start = nets[1](x).detach()
    assert torch.equal(at_start, torch.tanh(torch.tanh(x @ nets[1].first.T) @ w.T) @ nets[1].last.T)
    optimisers = [torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.0) for net in nets]
    for _ in range(50):
        for net, optimiser in zip(nets, optimisers, strict=True):
            optimiser.zero_grad()
            (net(x) - y).square().mean().backward()
            optimiser.step()
    residual, zero = (net(x).detach() for net in nets)
    assert float((zero - at_start).abs().max()) > 0.05
    assert float((residual - zero).abs().max()) < 1e-12
    assert torch.allclose(nets[0].b.detach() - made.b0, nets[1].b.detach(), atol=1e-12)
