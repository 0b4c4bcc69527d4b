"""Which rank each site gets: one number, a parameter budget, or by the energy that the old inputs leave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kore.adapters.param_budget import paid_rank, parse_count
from kore.errors import DataError
from kore.nullspace.covariance import Covariance, Site
from kore.nullspace.eigensolvers import fastest

if TYPE_CHECKING:
    from kore.config.resolve import AdapterSection

AUTO_KEEP = 0.999  # rank = "auto": what the adapter may touch is a thousandth of the old energy


def one_rank(sites: list[Site], d_out: Mapping[str, int], section: AdapterSection) -> int | None:
    """The rank that every site gets, or None where the old inputs decide, which takes their sums.

    Raises:
        DataError: a rank above a site's d_in or d_out, named.
        ProfileError: a budget that pays for nothing.
    """
    d_out = {linear: d_out[linear] for site in sites for linear in site.linears}
    paid = paid_rank(parse_count(section.budget), sum(d_out.values())) if section.budget else None
    if section.known_rank is None:
        return None
    rank = section.known_rank if paid is None else paid
    for site in sites:
        least = min([site.d_in, *(d_out[x] for x in site.linears)])
        if rank > least:
            raise DataError(f"rank {rank} does not fit a width of {least}", where=site.name)
    return rank


def choose_ranks(
    covariance: Covariance, sites: list[Site], d_out: Mapping[str, int], section: AdapterSection
) -> dict[str, int]:
    """Rank per site's name.

    With `keep` (or rank auto, which is keep 0.999) a site gets the largest rank whose directions hold
    at most 1 - keep of its old energy, at least 1; a budget lowers that share until all fit, and where
    directions without any energy alone cost more, caps every site's rank at one number. Without, every
    site gets the section's rank, or the one that the budget pays for.

    Raises:
        DataError: a rank above a site's d_in or d_out, named.
        ProfileError: a budget that pays for nothing.
    """
    if (rank := one_rank(sites, d_out, section)) is not None:
        return {site.name: rank for site in sites}
    budget = parse_count(section.budget) if section.budget else None
    spectra = {s.name: torch.linalg.eigvalsh(fastest(covariance.matrix(s))).clamp_min(0).cpu() for s in sites}
    most = {s.name: min([s.d_in, *(d_out[x] for x in s.linears)]) for s in sites}
    width = {s.name: sum(d_out[x] for x in s.linears) for s in sites}
    share = 1 - (section.keep if section.keep is not None else AUTO_KEEP)
    ranks = _by_energy(spectra, most, share)
    if budget is None or _cost(ranks, width) <= budget:
        return ranks
    free = _by_energy(spectra, most, 0.0)
    if _cost(free, width) > budget:  # fewer tokens than inputs leave exact zeros
        return _capped(free, width, budget)
    low, high = 0.0, share
    for _ in range(60):
        middle = (low + high) / 2
        fits = _cost(_by_energy(spectra, most, middle), width) <= budget
        low, high = (middle, high) if fits else (low, middle)
    return _by_energy(spectra, most, low)


def _by_energy(spectra: Mapping[str, Tensor], most: Mapping[str, int], share: float) -> dict[str, int]:
    ranks = {}
    for name, values in spectra.items():
        within = int((values.cumsum(0) <= share * values.sum()).sum())
        ranks[name] = max(1, min(within, most[name]))
    return ranks


def _capped(ranks: Mapping[str, int], width: Mapping[str, int], budget: int) -> dict[str, int]:
    """The ranks, none above the largest number that fits the budget."""
    capped = dict.fromkeys(ranks, 1)
    for cap in range(2, max(ranks.values()) + 1):
        more = {name: min(rank, cap) for name, rank in ranks.items()}
        if _cost(more, width) > budget:
            break
        capped = more
    return capped


def _cost(ranks: Mapping[str, int], width: Mapping[str, int]) -> int:
    return sum(rank * width[name] for name, rank in ranks.items())
