"""Pictures from Wikimedia Commons, with licence, credit and page."""

from __future__ import annotations

import json
import re
from typing import Any

from kore.augment.images.download import Downloader
from kore.augment.images.provider import Found
from kore.errors import ProviderError

API = "https://commons.wikimedia.org/w/api.php"
WIDTH = 1024  # Commons scales for us: originals may be enormous
MOST = 4 << 20


class CommonsImages:
    """Searches the file namespace of Wikimedia Commons (or, with `api`, of another MediaWiki)."""

    name = "commons"
    remote = True

    def __init__(self, downloader: Downloader | None = None, api: str = API) -> None:
        self.downloader = downloader or Downloader()
        self.api = api

    async def search(self, query: str, count: int) -> list[Found]:
        """Bitmap files that fit the words, in Commons' order.

        Raises:
            ProviderError: no usable answer after retries.
        """
        params = {
            "action": "query",
            "format": "json",
            "formatversion": "2",
            "generator": "search",
            "gsrnamespace": "6",
            "gsrsearch": f"filetype:bitmap {query}",
            "gsrlimit": str(count),
            "prop": "imageinfo",
            "iiprop": "url|mime|extmetadata",
            "iiurlwidth": str(WIDTH),
            "iiextmetadatafilter": "LicenseShortName|Artist",
        }
        body = await self.downloader.get(self.api, MOST, params=params)
        try:
            pages: list[dict[str, Any]] = json.loads(body).get("query", {}).get("pages", [])
        except (ValueError, AttributeError) as error:
            raise ProviderError("Wikimedia Commons sent something unreadable") from error
        pages.sort(key=lambda page: page.get("index", 0))
        return [found for page in pages if (found := _found(page)) is not None]

    async def close(self) -> None:
        """Give connections back."""
        await self.downloader.close()


def _found(page: dict[str, Any]) -> Found | None:
    info = (page.get("imageinfo") or [{}])[0]
    place = info.get("thumburl") or info.get("url")
    if not place or str(info.get("mime", "image/")).split("/")[0] != "image":
        return None
    said = info.get("extmetadata") or {}
    artist = re.sub(r"<[^>]+>", "", str((said.get("Artist") or {}).get("value") or "")).strip()
    licence = (said.get("LicenseShortName") or {}).get("value")
    return Found(str(place), info.get("descriptionurl"), licence, artist or None)
