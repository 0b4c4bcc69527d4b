"""Where pictures come from: one small protocol, and the choice by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Found:
    """A search result: a file, or an address to fetch; with its licence and page where they are known."""

    place: str
    source: str | None = None
    licence: str | None = None
    credit: str | None = None

    @property
    def is_local(self) -> bool:
        """A path rather than an address."""
        return "://" not in self.place

    def to_json(self) -> dict[str, Any]:
        """For the search cache and the list of sources."""
        return {k: v for k, v in self.__dict__.items() if v is not None}


class ImageProvider(Protocol):
    """Finds pictures by words."""

    @property
    def name(self) -> str:
        """As the manifest names it."""
        ...

    @property
    def remote(self) -> bool:
        """Whether a search goes over the network (and is worth keeping)."""
        ...

    async def search(self, query: str, count: int) -> list[Found]:
        """At most `count` results, best first; none is not an error."""
        ...

    async def close(self) -> None:
        """Give connections back."""
        ...


class NoImages:
    """No search: an item's own pictures serve all branches."""

    name = "none"
    remote = False

    async def search(self, query: str, count: int) -> list[Found]:
        """Nothing."""
        return []

    async def close(self) -> None:
        """Nothing to give back."""


def local_folder(choice: str) -> Path:
    """The folder of ``local:DIR``."""
    return Path(choice.partition(":")[2]).expanduser()
