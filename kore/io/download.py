"""Downloads from servers that are not trusted: only public addresses, bounded in size, type and redirects.

Every address, redirects included, is checked before it is requested, and the connection goes to the very
address that was checked, so a name that resolves to another one in between gains nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import random
import socket
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from kore.errors import DataError, ProviderError, UsageError
from kore.io.background import BackgroundLoop
from kore.io.http import retry_after
from kore.progress import Progress, silent
from kore.version import __version__

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
GIB = 1 << 30
MIB = 1 << 20
AGENT = f"kore-inject/{__version__}"
LONGEST_WAIT = 120.0  # seconds between tries, whatever the server asks for
_PIECE = 1 << 16
_TRIES = 4


@dataclass(frozen=True)
class Limits:
    """What a download may be.

    Attributes:
        size: most bytes.
        redirects: most hops, each checked like the first address.
        refused: content types (their beginnings) that mean an error page instead of data.
        private: allow addresses of this machine and of private networks, and plain http.
        http: allow plain http.
        proxies: use the environment's proxies, which then resolve names by themselves.
        seconds: time for a connection, and between two pieces.
        per_host: requests a second to one host.
    """

    size: int = 20 * GIB
    redirects: int = 5
    refused: tuple[str, ...] = ("text/html", "application/xhtml")
    private: bool = False
    http: bool = False
    proxies: bool = True
    seconds: float = 30.0
    per_host: float = 1000.0


class RefusedAddress(DataError):
    """An address that is not fetched from."""


class _Retriable(Exception):
    """A failure that may pass; `wait` seconds were asked for."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


@dataclass
class Downloader:
    """Fetches over HTTP; to be closed."""

    limits: Limits = field(default_factory=Limits)
    agent: str = AGENT

    def __post_init__(self) -> None:
        self._clients: dict[bool, httpx.AsyncClient] = {}
        self._next: dict[str, float] = defaultdict(float)

    async def get(
        self,
        address: str,
        most: int,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> bytes:
        """The body behind an address, at most `most` bytes, after retries.

        Args:
            headers: for the address's own host alone, since one may be a key.

        Raises:
            RefusedAddress: at the start or after a redirect. DataError: too large, or a page. ProviderError:
            no connection, or a server's error.
        """

        async def once() -> bytes:
            body = bytearray()
            async with self._response(address, headers or {}, {}, params) as response:
                async for piece in response.aiter_bytes(_PIECE):
                    body += piece
                    if len(body) > most:
                        raise DataError(f"larger than {most / MIB:.0f} MiB: {_shown(address)}")
            return bytes(body)

        return await self._tried(address, once)

    async def save(
        self,
        address: str,
        path: Path,
        *,
        headers: Mapping[str, str] | None = None,
        progress: Progress = silent,
    ) -> Path:
        """Fetch an address to a file; the part that an earlier try left is resumed.

        Raises:
            As `get`; after a ProviderError the part is kept.
        """
        part = path.with_name(path.name + ".part")
        path.parent.mkdir(parents=True, exist_ok=True)
        await self._tried(
            address,
            lambda: self._pull(address, part, headers or {}, progress),
            hint="what came is kept; the same command resumes",
        )
        part.replace(path)
        _version_of(part).unlink(missing_ok=True)
        return path

    async def close(self) -> None:
        """Close connections."""
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()

    async def _tried(
        self, address: str, once: Callable[[], Awaitable[T]], hint: str = "is there a connection?"
    ) -> T:
        import httpx

        for attempt in range(_TRIES):
            wait = None
            try:
                return await once()
            except (httpx.TransportError, httpx.DecodingError, httpx.InvalidURL, _Retriable) as error:
                said = str(error) if isinstance(error, _Retriable) else f"{type(error).__name__}: {error}"
                if attempt + 1 == _TRIES:
                    raise ProviderError(f"{_shown(address)}: {said}".rstrip(": "), hint=hint) from error
                wait = error.wait if isinstance(error, _Retriable) else None
            await asyncio.sleep(
                random.uniform(0, 0.5 * 2**attempt) if wait is None else min(wait, LONGEST_WAIT)
            )
        raise AssertionError("the last try returns or raises")

    @asynccontextmanager
    async def _response(
        self,
        address: str,
        headers: Mapping[str, str],
        own: Mapping[str, str],
        params: Mapping[str, str] | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """The response after redirects, each address checked."""
        import httpx

        url = httpx.URL(address, params=dict(params)) if params else httpx.URL(address)
        for _ in range(self.limits.redirects + 1):
            response = await self._send(url, {**headers, **own})
            try:
                if not response.is_redirect:
                    self._check(response, str(url))
                    yield response
                    return
                moved = httpx.URL(urljoin(str(url), response.headers.get("location", "")))
            finally:
                await response.aclose()
            if moved.netloc != url.netloc or moved.scheme != url.scheme:
                headers = {}  # a key is for the host that it was given for
            url = moved
        raise ProviderError(f"too many redirects, more than {self.limits.redirects}: {_shown(address)}")

    async def _send(self, url: httpx.URL, headers: Mapping[str, str]) -> httpx.Response:
        import httpx

        checked = await self._checked(url)
        await self._turn(url.host)
        proxied = self.limits.proxies and url.scheme in getproxies() and not proxy_bypass(url.host)
        if proxied not in self._clients:
            # without a proxy, none of the environment's may resolve the name anew, past the check
            self._clients[proxied] = httpx.AsyncClient(
                timeout=self.limits.seconds, follow_redirects=False, trust_env=proxied
            )
        client = self._clients[proxied]
        for place in [url] if proxied else [url.copy_with(host=address) for address in checked]:
            request = client.build_request(
                "GET",
                place,
                headers={"User-Agent": self.agent, "Accept": "*/*", **headers, "Host": url.netloc.decode()},
                extensions={"sni_hostname": url.host} if url.scheme == "https" and not proxied else {},
            )
            try:
                return await client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error  # of several addresses one may be out of reach, as IPv6 often is
        raise failure

    def _check(self, response: httpx.Response, url: str) -> None:
        status = response.status_code
        if status == 429 or status >= 500:
            raise _Retriable(f"HTTP {status}", retry_after(response.headers))
        if status not in (200, 206, 416):
            raise ProviderError(f"{_shown(url)}: HTTP {status} {response.reason_phrase}")
        kind = response.headers.get("content-type", "").lower()
        if self.limits.refused and kind.startswith(self.limits.refused):
            raise DataError(f"a page ({kind}), not data", where=_shown(url))

    async def _checked(self, url: httpx.URL) -> list[str]:
        """The host's numeric addresses, all of which may be asked."""
        plain = self.limits.private or self.limits.http
        if url.scheme not in (("https", "http") if plain else ("https",)) or not url.host:
            allowed = "http and https" if plain else "https"
            raise RefusedAddress(
                f"not an address to fetch from: {_shown(str(url))}",
                hint=f"only {allowed} addresses are fetched",
            )
        if url.userinfo:
            raise RefusedAddress(f"an address with a password is not fetched: {url.host}")
        try:
            found = await asyncio.get_running_loop().getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise _Retriable(f"no address for {url.host}") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        bad = [a for a in addresses if not self.limits.private and not is_public(a)]
        if bad or not addresses:
            raise RefusedAddress(
                f"refused: {url.host} is an address of a private network ({', '.join(bad)})",
                hint="allow private addresses if it is your own server",
            )
        return addresses

    async def _turn(self, host: str) -> None:
        """Wait for this host's turn."""
        now = time.monotonic()
        start = max(now, self._next[host])
        self._next[host] = start + 1 / self.limits.per_host
        if start > now:
            await asyncio.sleep(start - now)

    async def _pull(self, address: str, part: Path, headers: Mapping[str, str], progress: Progress) -> None:
        have = part.stat().st_size if part.exists() else 0
        version = _version_of(part)
        own = {"Accept-Encoding": "identity"}  # what comes is written as it is
        if have:
            own["Range"] = f"bytes={have}-"
            if version.is_file():  # the rest of another file than the part's is not wanted: then all of it
                own["If-Range"] = version.read_text(encoding="utf-8")
        async with self._response(address, headers, own) as response:
            if response.status_code == 416 and have:  # nothing is left to send
                whole = response.headers.get("content-range", "").rpartition("/")[2]
                if whole.isdigit() and int(whole) != have:
                    part.unlink()
                    raise _Retriable(f"the part is of another file: {have} bytes of {whole}", 0.0)
                return
            if packed := response.headers.get("content-encoding", "").replace("identity", ""):
                raise DataError(f"the server sends it packed ({packed}), though asked not to", where=address)
            if response.status_code != 206:
                have = 0
                _note_version(response, version)
            length = response.headers.get("content-length", "")
            total = have + int(length) if length.isdigit() else None
            self._check_size(total or 0, address)
            with part.open("ab" if have else "wb") as stream:
                async for piece in response.aiter_raw(_PIECE):
                    have += len(piece)
                    self._check_size(have, address)
                    stream.write(piece)
                    progress(part.stem, have, total)
            if total is not None and have < total:
                raise _Retriable(f"cut off after {have} of {total} bytes")

    def _check_size(self, size: int, address: str) -> None:
        if size > self.limits.size:
            raise DataError(f"more than the limit of {self.limits.size / GIB:.1f} GiB", where=_shown(address))


def is_public(address: str) -> bool:
    """Whether a numeric address is public, and the IPv4 address that it may wrap (mapped, 6to4) too."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    inner = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None)
    if inner is not None and not (inner.is_global and not inner.is_multicast):
        return False
    return ip.is_global and not ip.is_multicast


def download(
    url: str,
    path: Path,
    *,
    limits: Limits | None = None,
    progress: Progress = silent,
    headers: Mapping[str, str] | None = None,
) -> Path:
    """`Downloader.save`, for callers without an event loop.

    Raises:
        UsageError: an address that is refused. DataError, ProviderError: as `Downloader.get`.
    """
    downloader = Downloader(limits or Limits())
    return _run(downloader, downloader.save(url, path, headers=headers, progress=progress))


def get_json(url: str, limits: Limits | None = None, headers: Mapping[str, str] | None = None) -> Any:
    """A small JSON answer (1 MiB at most); raises as `download`."""
    downloader = Downloader(limits or Limits())
    data = _run(downloader, downloader.get(url, MIB, headers=headers))
    try:
        return json.loads(data)
    except ValueError as error:
        raise DataError("not JSON", where=url) from error


def _run(downloader: Downloader, work: Coroutine[Any, Any, T]) -> T:
    loop = BackgroundLoop()
    try:
        return loop.submit(work).result()
    except RefusedAddress as error:  # the user named it
        raise UsageError(error.message, hint=error.hint) from error
    finally:
        loop.submit(downloader.close()).result()
        loop.close()


def _version_of(part: Path) -> Path:
    return part.with_name(part.name + ".version")


def _note_version(response: httpx.Response, path: Path) -> None:
    """Keep what tells whether a later answer resumes the same file."""
    tag = response.headers.get("etag", "")
    strong = tag.startswith('"')  # weak ones tell nothing
    found = tag if strong else response.headers.get("last-modified", "")
    if found.isascii() and found:
        path.write_text(found, encoding="utf-8")
    else:
        path.unlink(missing_ok=True)


def _shown(address: str) -> str:
    """An address without its query and its user part, which may hold a key."""
    parts = urlsplit(address.partition("?")[0])
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
