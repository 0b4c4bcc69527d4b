"""Images from strangers' servers: an answer must be an image by its bytes, and of bounded size."""

from __future__ import annotations

from kore.augment.images.store import LARGEST, sniff
from kore.io import download

AGENT = f"{download.AGENT} (knowledge injection; fetches pictures named by a search)"
PER_HOST = 5.0  # requests a second to one host


class Downloader(download.Downloader):
    """Fetches images over HTTP.

    Args:
        private: allow addresses of private networks (for tests and for search services of your own).
    """

    def __init__(self, *, private: bool = False, timeout: float = 30.0, per_host: float = PER_HOST) -> None:
        limits = download.Limits(
            refused=(), private=private, http=True, proxies=False, seconds=timeout, per_host=per_host
        )
        super().__init__(limits, AGENT)

    async def fetch(self, address: str) -> bytes:
        """The image's bytes.

        Raises:
            DataError: refused address, too large, or not an image. ProviderError: after retries.
        """
        data = await self.get(address, LARGEST)
        sniff(data, address)
        return data
