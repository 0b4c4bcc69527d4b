"""Any search service that answers in JSON, described in the profile: address, key, path to the results."""

from __future__ import annotations

import json
import os
import re
from typing import Any
from urllib.parse import quote, urlsplit

from kore.augment.images.download import Downloader
from kore.augment.images.provider import Found
from kore.config.schema import HttpImages
from kore.errors import ProfileError, ProviderError, UsageError
from kore.io.files import hash_json

MOST = 4 << 20


class HttpSearch:
    """A search by GET.

    Args:
        settings: ``[augment.http]``; `url` holds {query} and {count}.
        private: the service may lie in an inner network.

    Raises:
        ProfileError: no address. UsageError: the key's or another variable is not set.
    """

    remote = True

    def __init__(self, settings: HttpImages, *, private: bool = False) -> None:
        if not settings.url or "{query}" not in settings.url:
            raise ProfileError(
                "augment.http.url must be set and hold {query}",
                where="augment.http.url",
                hint="profiles/images-google-cse.toml and profiles/images-serpapi.toml are worked examples",
            )
        self.settings = settings
        self._url = _from_environment(settings.url)
        # searches are kept by name: another engine or another path to the results is another search
        search = hash_json([self._url, settings.model_dump(exclude={"url", "key_env"})])
        self.name = f"http:{urlsplit(settings.url).hostname}-{search[:8]}"
        self._key = os.environ.get(settings.key_env or "", "")
        if settings.key_env and not self._key:
            raise UsageError(
                f"no {settings.key_env} in the environment", hint="it holds the search service's key"
            )
        self.downloader = Downloader(private=private)

    async def search(self, query: str, count: int) -> list[Found]:
        """Results in the service's order.

        Raises:
            ProviderError: no usable answer after retries.
        """
        address = self._url.replace("{query}", quote(query)).replace("{count}", str(count))
        headers = {self.settings.key_header: self._key} if self.settings.key_header else {}
        if self.settings.key_param:
            address += f"{'&' if '?' in address else '?'}{self.settings.key_param}={quote(self._key)}"
        try:
            value = json.loads(await self.downloader.get(address, MOST, headers=headers))
        except ValueError as error:
            raise ProviderError("the picture search sent something that is not JSON") from error
        results = _at(value, self.settings.results)
        if results is None:
            return []  # most services leave the list out when nothing was found
        if not isinstance(results, list):
            raise ProviderError(
                f"no list at {self.settings.results!r} in the search's answer",
                hint="see augment.http.results",
            )
        return [found for result in results[:count] if (found := self._found(result)) is not None]

    def _found(self, result: Any) -> Found | None:
        place = _at(result, self.settings.link)
        if not isinstance(place, str) or not place.startswith(("http://", "https://")):
            return None
        licence = _at(result, self.settings.licence) if self.settings.licence else None
        page = _at(result, self.settings.page) if self.settings.page else None
        return Found(place, str(page) if page else None, str(licence) if licence else None)

    async def close(self) -> None:
        """Give connections back."""
        await self.downloader.close()


def _from_environment(url: str) -> str:
    """The address with ``{NAME}`` in capitals replaced by the environment variable of that name."""

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1])
        if not found:
            raise UsageError(f"no {match[1]} in the environment", hint="augment.http.url names it")
        return quote(found)

    return re.sub(r"\{([A-Z][A-Z0-9_]+)\}", value, url)


def _at(value: Any, path: str) -> Any:
    """What lies at a path of keys and list positions, dots between; None if nothing does."""
    for part in path.split("."):
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value
