"""All language linears of a model decomposed, on disk, and the model without some of their components."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from kore.io.files import atomic_write
from kore.nullspace.basis import check
from kore.nullspace.covariance import Covariance, shard
from kore.progress import Progress, silent
from kore.studies.truncation_study.captured_energy import Drop, Method, lost, rebuild, smallest


@dataclass(frozen=True)
class Cut:
    """One decomposition in a folder: the directions that go, one shard per decoder layer.

    Attributes:
        linears: full name -> linear, in the order of the layers.
        layers: full name of the model's list of decoder layers.
        drops: what is dropped, one after the other.
        covariance: what S is made from; None for plain.
        measured: name -> covariance on whose inputs the loss is measured.
    """

    folder: Path
    linears: Mapping[str, nn.Linear]
    layers: str
    method: Method
    drops: Sequence[Drop]
    covariance: Covariance | None
    measured: Mapping[str, Covariance]

    def by_layer(self) -> dict[int, list[str]]:
        """Decoder layer -> its linears."""
        found: dict[int, list[str]] = {}
        for name in self.linears:
            found.setdefault(int(name.removeprefix(f"{self.layers}.").partition(".")[0]), []).append(name)
        return found

    def make(self, progress: Progress = silent) -> None:
        """Decompose layer by layer, with one covariance matrix in memory at a time; a layer whose shard is
        there is passed over.

        Raises:
            DataError: a covariance that lacks a linear, or is none; names it.
        """
        from safetensors.torch import save

        layers = self.by_layer()
        for done, (layer, names) in enumerate(layers.items(), start=1):
            path = shard(self.folder, layer)
            if not path.exists():
                columns: dict[str, Tensor] = {}
                losses: dict[str, dict[str, list[float]]] = {}
                for sharing in self._by_input(names):
                    found = self._columns(sharing)
                    columns |= {name: value.float().cpu().contiguous() for name, value in found.items()}
                    for label, other in self.measured.items():
                        losses.setdefault(label, {}).update(self._losses(found, other))
                with atomic_write(path, "wb") as stream:
                    stream.write(save(columns, metadata={"lost": json.dumps(losses)}))
            progress("decompose", done, len(layers))

    def _by_input(self, names: Sequence[str]) -> list[list[str]]:
        """Linears of one layer by the input that they share."""
        known = self.covariance or next(iter(self.measured.values()), None)
        groups: dict[str, list[str]] = {}
        for name in names:
            groups.setdefault(known.site_of(name).name if known else name, []).append(name)
        return list(groups.values())

    def _columns(self, names: Sequence[str]) -> dict[str, Tensor]:
        """What the largest drop takes from each of the linears that share an input."""
        c = self._matrix(self.covariance, names[0]) if self.covariance is not None else None
        weights = {name: self.linears[name].weight.detach() for name in names}
        return {
            name: smallest(w, self.method, max(self._counts(name)), c, name=name)
            for name, w in weights.items()
        }

    def _losses(self, columns: Mapping[str, Tensor], other: Covariance) -> dict[str, list[float]]:
        """Linear -> what each drop loses on the inputs of `other`."""
        c = self._matrix(other, next(iter(columns)))
        found = {}
        for name, value in columns.items():
            shares = lost(self.linears[name].weight.detach(), value, c)
            found[name] = [float(shares[k - 1]) if k else 0.0 for k in self._counts(name)]
        return found

    def _counts(self, name: str) -> list[int]:
        return [drop.of(name, self.linears[name].weight.shape) for drop in self.drops]

    def _matrix(self, covariance: Covariance, name: str) -> Tensor:
        c = covariance.matrix(covariance.site_of(name))
        check(c, name)
        return c.to(self.linears[name].weight.device)

    def lost(self, drop: Drop) -> dict[str, float]:
        """Name of a measured covariance -> share of the outputs' energy on its inputs that is gone, mean
        over the linears."""
        from safetensors import safe_open

        index = list(self.drops).index(drop)
        found: dict[str, list[float]] = {}
        for layer in self.by_layer():
            with safe_open(shard(self.folder, layer), framework="pt") as stream:
                header = json.loads(stream.metadata()["lost"])
            for label, by_linear in header.items():
                found.setdefault(label, []).extend(shares[index] for shares in by_linear.values())
        return {label: sum(shares) / len(shares) for label, shares in found.items()}

    @contextmanager
    def applied(self, drop: Drop) -> Iterator[None]:
        """The model without the dropped components inside the block, bit for bit as before after it.

        On a GPU the original weights wait in main memory.
        """
        from safetensors import safe_open

        kept: dict[str, Tensor] = {}
        try:
            for layer, names in self.by_layer().items():
                with safe_open(shard(self.folder, layer), framework="pt") as stream:
                    for name in names:
                        weight = self.linears[name].weight
                        columns = stream.get_tensor(name)[:, : drop.of(name, weight.shape)]
                        new = rebuild(weight.detach(), columns.to(weight.device))
                        kept[name] = weight.data.cpu()  # no copy where it lies there already
                        weight.data = new
            yield
        finally:
            for name, value in kept.items():
                weight = self.linears[name].weight
                weight.data = value.to(weight.device)
