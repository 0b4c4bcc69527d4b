"""Where a model comes from: the base it began as and the adapters merged into it since, in order.

A merged folder carries lineage.json; a folder without one is a base of its own. Covariances know their
model's lineage, so that sums along one chain are allowed and any other is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kore.errors import DataError
from kore.io.files import hash_folder, read_json, write_json

NAME = "lineage.json"


@dataclass(frozen=True)
class Lineage:
    """A chain of models.

    Attributes:
        root: fingerprint of the base that the chain began with.
        chain: fingerprints of the adapters merged since, oldest first.
    """

    root: str
    chain: tuple[str, ...] = ()

    def leads_to(self, other: Lineage) -> bool:
        """Whether `other` is this model or one made from it."""
        return self.root == other.root and other.chain[: len(self.chain)] == self.chain

    def then(self, adapter: str) -> Lineage:
        """The model after one more adapter."""
        return Lineage(self.root, (*self.chain, adapter))

    def write(self, folder: Path) -> None:
        """Write lineage.json."""
        write_json(folder / NAME, {"root": self.root, "chain": list(self.chain)})


def read_lineage(folder: Path, fingerprint: str) -> Lineage:
    """The lineage of a model folder; a folder that tells none is a root.

    Raises:
        DataError: a lineage.json that is none.
    """
    path = folder / NAME
    if not path.is_file():
        return Lineage(fingerprint)
    value = read_json(path)
    try:
        return Lineage(str(value["root"]), tuple(str(a) for a in value["chain"]))
    except (KeyError, TypeError) as error:
        raise DataError("not a lineage", where=str(path)) from error


def adapter_fingerprint(folder: Path) -> str:
    """Hash of an adapter folder's weights and configuration."""
    return hash_folder(folder, "adapter_*")
