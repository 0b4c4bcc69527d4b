"""Fetching pictures from strangers' servers without being led astray.

Every address, redirects included, is checked before it is asked: http(s) only, no private, loopback or other
inner network. The connection goes to the very address that was checked, so a name that changes its mind in
between gains nothing. The answer must be a picture by its bytes, and of bounded size.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections import defaultdict
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from kore.augment.images.store import LARGEST, sniff
from kore.errors import DataError, ProviderError
from kore.version import __version__

if TYPE_CHECKING:
    import httpx

AGENT = f"kore-inject/{__version__} (knowledge injection; fetches pictures named by a search)"
MOST_REDIRECTS = 5
TRIES = 4
PER_HOST = 5.0  # requests a second to one host


class Retriable(Exception):
    """A failure that may pass; `wait` seconds were asked for."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class Downloader:
    """Gets pictures over HTTP.

    Args:
        private: allow addresses of inner networks (for tests and for search services of your own).
    """

    def __init__(self, *, private: bool = False, timeout: float = 30.0, per_host: float = PER_HOST) -> None:
        self.private = private
        self.timeout = timeout
        self._gap = 1 / per_host
        self._client: httpx.AsyncClient | None = None
        self._next: dict[str, float] = defaultdict(float)

    async def fetch(self, address: str) -> bytes:
        """The picture's bytes.

        Raises:
            DataError: refused address, too large, or not a picture. ProviderError: not to be had after
            retries.
        """
        data = await self.get(address, LARGEST)
        sniff(data, address)
        return data

    async def get(
        self,
        address: str,
        most: int,
        *,
        headers: dict[str, str] | None = None,
        params: dict[str, str] | None = None,
    ) -> bytes:
        """The body behind an address, at most `most` bytes, after retries."""
        from tenacity import (
            AsyncRetrying,
            RetryCallState,
            retry_if_exception_type,
            stop_after_attempt,
            wait_random_exponential,
        )

        backoff = wait_random_exponential(multiplier=0.5, max=20)

        def rest(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.wait if isinstance(error, Retriable) else None
            return min(asked, 120.0) if asked is not None else float(backoff(state))

        try:
            async for attempt in AsyncRetrying(
                stop=stop_after_attempt(TRIES),
                wait=rest,
                retry=retry_if_exception_type(Retriable),
                reraise=True,
            ):
                with attempt:
                    return await self._follow(address, most, headers or {}, params)
        except Retriable as error:
            raise ProviderError(f"{_shown(address)}: {error}") from error
        raise AssertionError("tenacity either returns or raises")

    async def _follow(
        self, address: str, most: int, headers: dict[str, str], params: dict[str, str] | None
    ) -> bytes:
        import httpx

        if self._client is None:
            # trust_env off: a proxy from the environment would resolve names for us, past the check
            self._client = httpx.AsyncClient(timeout=self.timeout, follow_redirects=False, trust_env=False)
        for _ in range(MOST_REDIRECTS + 1):
            url = httpx.URL(address, params=params) if params else httpx.URL(address)
            params = None
            try:
                body = await self._once(self._client, url, most, headers)
            except (httpx.TransportError, httpx.InvalidURL) as error:
                raise Retriable(f"{type(error).__name__}: {error}") from error
            if isinstance(body, bytes):
                return body
            moved = urljoin(str(url), body)
            if urlsplit(moved).netloc != urlsplit(address).netloc:
                headers = {}  # a key is for the host it was given for
            address = moved
        raise DataError(f"too many redirects: {_shown(address)}")

    async def _once(
        self, client: httpx.AsyncClient, url: httpx.URL, most: int, headers: dict[str, str]
    ) -> bytes | str:
        """The body, or where a redirect leads."""
        checked = await self._checked(url)
        await self._turn(url.host)
        request = client.build_request(
            "GET",
            url.copy_with(host=checked),
            headers={"User-Agent": AGENT, "Accept": "*/*", **headers, "Host": url.netloc.decode()},
            extensions={"sni_hostname": url.host} if url.scheme == "https" else {},
        )
        answer = await client.send(request, stream=True)
        try:
            if answer.is_redirect:
                return str(answer.headers.get("location", ""))
            if answer.status_code == 429 or answer.status_code >= 500:
                raise Retriable(f"HTTP {answer.status_code}", _seconds(answer.headers.get("retry-after")))
            if answer.status_code != 200:
                raise ProviderError(f"{_shown(str(url))}: HTTP {answer.status_code}")
            body = bytearray()
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > most:
                    raise DataError(f"larger than {most >> 20} MiB: {_shown(str(url))}")
            return bytes(body)
        finally:
            await answer.aclose()

    async def _checked(self, url: httpx.URL) -> str:
        """A numeric address of the host that may be asked."""
        if url.scheme not in ("http", "https") or not url.host:
            raise DataError(f"only http and https addresses are fetched: {_shown(str(url))}")
        try:
            found = await asyncio.get_running_loop().getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise Retriable(f"no address for {url.host}") from error
        addresses = [str(entry[4][0]) for entry in found]
        bad = [a for a in addresses if not self.private and not _is_public(a)]
        if bad or not addresses:
            raise DataError(f"refused: {url.host} is an address of an inner network ({', '.join(bad)})")
        return addresses[0]

    async def _turn(self, host: str) -> None:
        """Wait for this host's turn."""
        now = time.monotonic()
        start = max(now, self._next[host])
        self._next[host] = start + self._gap
        if start > now:
            await asyncio.sleep(start - now)

    async def close(self) -> None:
        """Give connections back."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.split("%")[0])
    inner = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None)
    if inner is not None and not inner.is_global:
        return False
    return ip.is_global and not ip.is_multicast


def _seconds(header: str | None) -> float | None:
    """Retry-After in seconds, whether it says seconds or a date."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        from email.utils import parsedate_to_datetime

        try:
            return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
        except (TypeError, ValueError):
            return None


def _shown(address: str) -> str:
    """An address without its query, which may hold a key."""
    return address.split("?")[0]
