"""Search words in, stored pictures out: searches are kept, downloads are checked, sources are remembered."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from kore.augment.images.provider import Found, ImageProvider
from kore.augment.images.store import ImageStore
from kore.errors import DataError, ProviderError
from kore.io.files import hash_json


class Fetcher(Protocol):
    """Gets a picture's bytes from an address."""

    async def fetch(self, address: str) -> bytes:
        """The bytes.

        Raises:
            DataError: refused or not a picture. ProviderError: could not be had.
        """
        ...

    async def close(self) -> None:
        """Give connections back."""
        ...


@dataclass
class Finder:
    """Finds pictures for search words.

    Args:
        kept: folder where remote searches and downloads are kept; None keeps none.
    """

    provider: ImageProvider
    store: ImageStore
    fetcher: Fetcher
    kept: Path | None
    failures: list[str] = field(default_factory=list)
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def find(self, query: str, count: int) -> list[tuple[str, Path]]:
        """Record path and file of up to `count` pictures, best first; what cannot be had is noted and left
        out."""
        pictures: dict[str, Path] = {}
        for found in await self._search(query, count):
            try:
                record = await self.take(found)
            except (DataError, ProviderError) as error:
                self.failures.append(f"{found.place}: {error.message}")
                continue
            pictures.setdefault(record, self.store.path(record))
        return list(pictures.items())

    async def take(self, found: Found) -> str:
        """Store one search result."""
        record = (
            self.store.add_file(Path(found.place)) if found.is_local else await self._download(found.place)
        )
        if not found.is_local or found.source or found.licence:
            self.sources[Path(record).name] = found.to_json()
        return record

    async def _search(self, query: str, count: int) -> list[Found]:
        if not self.provider.remote or self.kept is None:
            return await self.provider.search(query, count)
        path = self.kept / "searches" / f"{hash_json([self.provider.name, query, count])}.json"
        try:
            return [Found(**value) for value in json.loads(path.read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError):
            found = await self.provider.search(query, count)
        _put(path, json.dumps([f.to_json() for f in found], ensure_ascii=False).encode())
        return found

    async def _download(self, address: str) -> str:
        if self.kept is None:
            return self.store.add_bytes(await self.fetcher.fetch(address), address)
        path = self.kept / "pictures" / hash_json(address)
        try:
            data = path.read_bytes()
        except OSError:
            data = await self.fetcher.fetch(address)
            _put(path, data)
        return self.store.add_bytes(data, address)

    async def close(self) -> None:
        """Give connections back."""
        await self.provider.close()
        await self.fetcher.close()


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
