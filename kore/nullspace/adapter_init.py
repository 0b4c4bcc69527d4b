"""From a covariance and a model's weights to the adapter's frozen A, for every adapted linear."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from kore.errors import DataError, UsageError
from kore.models.load import dense
from kore.nullspace.basis import NullBasis, adapter_factors, null_basis
from kore.nullspace.covariance import Covariance, Site
from kore.nullspace.eigensolvers import fastest
from kore.nullspace.layer_selection import parse_layers, parse_share
from kore.progress import Progress, silent

if TYPE_CHECKING:
    from kore.config.resolve import AdapterSection

STAGE = "null space"
WeightOf = Callable[[str], Tensor]


class WeightSource(Protocol):
    """Where W0 comes from: a loaded model, or a checkpoint that is read tensor by tensor."""

    def weight(self, linear: str) -> Tensor:
        """W0 of a linear by its full name, (d_out, d_in). Reading it may be slow."""
        ...

    def out_features(self, linear: str) -> int:
        """d_out of a linear, without reading its weight."""
        ...


@dataclass(frozen=True)
class _Linears:
    """Linears in memory."""

    find: Callable[[str], nn.Module]

    def weight(self, linear: str) -> Tensor:
        return dense(self.find(linear))

    def out_features(self, linear: str) -> int:
        return int(self.find(linear).out_features)  # type: ignore[arg-type]


@dataclass
class AdapterFactors:
    """What an adapter starts from.

    Attributes:
        a: linear's full name -> frozen A, (r, d_in) float32.
        report: per site: rank, energy left, solver, residual, orthonormality.
    """

    a: dict[str, Tensor] = field(default_factory=dict)
    report: list[dict[str, Any]] = field(default_factory=list)


def factors(
    model: nn.Module | Mapping[str, nn.Linear] | WeightSource,
    covariance: Covariance,
    section: AdapterSection,
    *,
    new: Covariance | None = None,
) -> dict[str, Tensor]:
    """The frozen A of every linear that the covariance covers; see `build`."""
    return build(model, covariance, section, new=new).a


def build(
    model: nn.Module | Mapping[str, nn.Linear] | WeightSource,
    covariance: Covariance,
    section: AdapterSection,
    *,
    new: Covariance | None = None,
    progress: Progress = silent,
) -> AdapterFactors:
    """Make the frozen A of every linear.

    Args:
        model: where W0 is: a model, linears by full name, or a source that reads weights one by one.
            Each weight is read once.
        covariance: of what is to be kept.
        section: rank, basis, solver, layers, scale.
        new: covariance of the new samples, for the contrast basis.

    Raises:
        DataError: a covariance that is no covariance, or a rank that does not fit; names the site.
    """
    from kore.nullspace.rank_selection import choose_ranks

    source = _source(model)
    sites = chosen_sites(covariance, section)
    if new is not None and new.model != covariance.model:
        raise DataError(f"the covariance {new.folder} is of another model than {covariance.folder}")
    if new is not None:
        new.check_reads(covariance.reads)
    d_out = {linear: source.out_features(linear) for s in sites for linear in s.linears}
    ranks = choose_ranks(covariance, sites, d_out, section)
    made = AdapterFactors()
    for done, site in enumerate(sites, start=1):
        basis = _basis(covariance, site, ranks[site.name], section, new)
        for linear in site.linears:
            result = adapter_factors(source.weight(linear), basis.vectors, name=linear)
            made.a[linear] = (section.scale * result.a).float().cpu()
        made.report.append(
            {
                "site": site.name,
                "rank": ranks[site.name],
                "energy_left": basis.energy_left,
                "solver": basis.solver,
                "residual": basis.residual,
                "orthonormality": basis.orthonormality,
            }
        )
        progress(STAGE, done, len(sites), site.name)
    return made


def chosen_sites(covariance: Covariance, section: AdapterSection) -> list[Site]:
    """The covariance's sites in the layers that the section adapts.

    Raises:
        DataError: a chosen layer was not calibrated. UsageError: auto, which calibration decides.
    """
    return adapted(covariance.sites, section, f"the covariance {covariance.folder}")


def adapted(sites: list[Site], section: AdapterSection, what: str = "the calibration") -> list[Site]:
    """Those of `sites` in the layers that the section adapts; raises as `chosen_sites`."""
    present = {s.layer for s in sites}
    layers = present
    if section.layers != "all":
        if parse_share(section.layers) is not None:
            raise UsageError(
                "adapter.layers: auto chooses before the inputs are summed",
                hint=f"kore calibrate --layers {section.layers} --new NEW.jsonl; the adapter follows it",
            )
        layers = set(parse_layers(section.layers, max(present) + 1, what))
    if missing := layers - present:
        raise DataError(
            f"{what} holds nothing for layer {min(missing)}", hint="calibrate with the same --layers"
        )
    return [s for s in sites if s.layer in layers]


def _basis(
    covariance: Covariance, site: Site, rank: int, section: AdapterSection, new: Covariance | None
) -> NullBasis:
    c = fastest(covariance.matrix(site))
    if section.basis == "paper":
        return null_basis(c, rank, solver=section.solver, name=site.name)
    from kore.nullspace.contrastive_basis import contrast_basis

    if new is None:
        raise DataError(
            "the contrast basis needs a covariance of the new samples too",
            hint="kore calibrate --samples NEW.jsonl --with-answers makes one",
        )
    other = new.matrix(new.site_of(site.linears[0])).to(c.device)
    return contrast_basis(c, other, rank, section.contrast, solver=section.solver, name=site.name)


def _source(model: nn.Module | Mapping[str, nn.Linear] | WeightSource) -> WeightSource:
    if isinstance(model, nn.Module):
        return _Linears(model.get_submodule)
    if isinstance(model, Mapping):
        return _Linears(model.__getitem__)
    return model
