"""|C| of chosen inputs over several covariances, small enough to look at (paper, figures 4c, 8 and 9).

Tasks that are alike light up the same channels; others do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import kore.plot as plot
from kore.errors import DataError, MissingArtefact, UsageError
from kore.nullspace.covariance import Covariance, Site
from kore.nullspace.layer_selection import parse_layers
from kore.nullspace.spectra import CELLS, heatmap


@dataclass(frozen=True)
class Map:
    """One covariance of one input.

    Attributes:
        covariance: what was summed. folder: where.
        size: cells per side.
        alike: cosine between this C and the first covariance's, 1 for the first itself.
        values: size rows; |C| per token, averaged over each cell.
    """

    covariance: str
    folder: str
    name: str
    layer: int
    site: str
    d_in: int
    tokens: int
    size: int
    alike: float
    values: list[list[float]]

    def to_json(self) -> dict[str, Any]:
        """A plain object."""
        return asdict(self)


def open_covariances(folders: Sequence[Path]) -> list[Covariance]:
    """Covariances that can be set side by side.

    Raises:
        MissingArtefact: none there, or not finished.
        DataError: of models that began as different bases.
    """
    found = [Covariance(folder) for folder in folders]
    for other in found[1:]:
        if other.lineage.root != found[0].lineage.root:
            raise DataError(
                f"{other.folder} is of model {other.model}, {found[0].folder} of {found[0].model}",
                hint="covariances of one model are set side by side",
            )
    return found


def chosen(covariances: Sequence[Covariance], layers: str | None, sites: str | None) -> list[str]:
    """Names of the inputs to look at.

    Args:
        layers: all, 0-3 or 0,5,7; None: the first, the middle and the last.
        sites: qkv, o, gate_up, down, with commas, or all; None: each layer's first.

    Raises:
        UsageError: a layer or site that one of the covariances does not hold.
    """
    first = covariances[0]
    present = sorted({s.layer for s in first.sites})
    if layers is None:
        numbers = sorted({present[0], present[len(present) // 2], present[-1]})
    else:
        numbers = present if layers == "all" else parse_layers(layers, present[-1] + 1)
    wanted = [part.strip() for part in sites.split(",")] if sites else None
    found: list[str] = []
    for layer in numbers:
        here = [s.site for s in first.sites if s.layer == layer]
        names = here[:1] if wanted is None else here if wanted == ["all"] else wanted
        found += [f"layers.{layer}.{name}" for name in names]
    for covariance in covariances:
        held = {s.name for s in covariance.sites}
        for name in found:
            if name not in held:
                layer_sites = [
                    s.site for s in covariance.sites if s.name.startswith(name.rpartition(".")[0] + ".")
                ]
                raise UsageError(
                    f"the covariance {covariance.folder} holds no {name}",
                    hint=f"this layer's sites: {', '.join(layer_sites)}" if layer_sites else None,
                )
    return found


def maps(covariances: Sequence[Covariance], names: Sequence[str], size: int = CELLS) -> Iterator[Map]:
    """The maps, all covariances of one input after the other; two matrices are in memory at a time."""
    for name in names:
        first = None
        for covariance in covariances:
            site = _site(covariance, name)
            c = covariance.matrix(site)
            if first is None:
                first = c
            norms = float(first.norm()) * float(c.norm())
            values = heatmap(c / max(site.tokens, 1), size)
            yield Map(
                covariance.label,
                str(covariance.folder),
                name,
                site.layer,
                site.site,
                site.d_in,
                site.tokens,
                len(values),
                float((first * c).sum()) / norms if norms else 0.0,
                values,
            )


def _site(covariance: Covariance, name: str) -> Site:
    return next(s for s in covariance.sites if s.name == name)


def check_plots() -> None:
    """Say before any work that a picture cannot be drawn.

    Raises:
        MissingArtefact: matplotlib is not installed.
    """
    if plot.pyplot() is None:
        raise MissingArtefact("a picture needs matplotlib", hint='pip install "kore-inject[plots]"')


def draw(found: Sequence[Map], path: Path) -> Path:
    """One row of panels per input, one column per covariance, each row with one logarithmic scale."""
    check_plots()
    from matplotlib.colors import LogNorm

    names = list(dict.fromkeys(m.name for m in found))
    rows = [[m for m in found if m.name == name] for name in names]
    across = max(len(row) for row in rows)
    pyplot = plot.pyplot()
    figure, panels = pyplot.subplots(
        len(rows),
        across,
        figsize=(2.8 * across + 0.6, 2.8 * len(rows) + 0.2),
        squeeze=False,
        layout="constrained",
    )
    for row, line in zip(rows, panels, strict=True):
        known = [v for m in row for values in m.values for v in values if v > 0]
        scale = LogNorm(min(known), max(known)) if known and min(known) < max(known) else None
        for m, axes in zip(row, line, strict=True):
            image = axes.imshow([[max(v, min(known, default=0.0)) for v in r] for r in m.values], norm=scale)
            axes.set_title(f"{m.covariance}, {m.name}\n{m.alike:.3f} like the first", fontsize=8)
            axes.set_xticks([])
            axes.set_yticks([])
        figure.colorbar(image, ax=list(line), fraction=0.03, pad=0.01)
    return plot.save(figure, path)
