"""Downloads: only what is asked for, from servers on the public net, bounded in size, kind and redirects.

The only code of `kore.evaluation` that touches the network, and only `kore data fetch` calls it.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from kore.errors import DataError, ProviderError, UsageError
from kore.progress import Progress, silent

if TYPE_CHECKING:
    import httpx

GIB = 1 << 30
_PIECE = 1 << 16
_TRIES = 4


@dataclass(frozen=True)
class Limits:
    """What a download may be.

    Attributes:
        size: most bytes.
        redirects: most hops, each checked like the first address.
        refused: content types (their beginnings) that mean an error page instead of data.
        private: allow addresses of this machine and private networks, and plain http.
        seconds: time for a connection, and between two pieces.
    """

    size: int = 20 * GIB
    redirects: int = 5
    refused: tuple[str, ...] = ("text/html", "application/xhtml")
    private: bool = False
    seconds: float = 30.0


def check_address(url: str, limits: Limits) -> None:
    """Refuse anything but https to a public address.

    Raises:
        UsageError: another scheme, a name in the user part, a host that resolves to a private address.
    """
    parts = urlsplit(url)
    allowed = ("https", "http") if limits.private else ("https",)
    if parts.scheme not in allowed or not parts.hostname:
        raise UsageError(f"not an address to fetch from: {url}", hint="only https addresses are fetched")
    if parts.username or parts.password:
        raise UsageError(f"an address with a password is not fetched: {parts.hostname}")
    if limits.private:
        return
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ProviderError(
            f"cannot find {parts.hostname}: {error.strerror}", hint="is there a connection?"
        ) from error
    for *_, address in found:
        _check_public(str(address[0]), parts.hostname)


def _check_public(address: str, host: str) -> None:
    if not ipaddress.ip_address(address.partition("%")[0]).is_global:
        raise UsageError(f"{host} is at the private address {address}: refused")


def download(
    url: str,
    path: Path,
    *,
    limits: Limits | None = None,
    progress: Progress = silent,
    headers: Mapping[str, str] | None = None,
) -> Path:
    """Fetch `url` to `path`; a part that is there from an earlier try is gone on from.

    Raises:
        ProviderError: no connection, a server's error, cut off too often; the part is kept.
        DataError: larger than allowed, or not data but a page.
        UsageError: an address that is refused, at the start or after a redirect.
    """
    import httpx

    limits = limits or Limits()
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _client(limits) as client:
        for attempt in range(_TRIES):
            try:
                _pull(client, url, part, limits, progress, dict(headers or {}))
                break
            except (httpx.TransportError, _CutOff) as error:
                if attempt + 1 == _TRIES:
                    raise ProviderError(
                        f"{url}: {type(error).__name__.strip('_')} {error}".rstrip(),
                        hint="what came is kept; the same command goes on",
                    ) from error
    part.replace(path)
    part.with_name(part.name + ".version").unlink(missing_ok=True)
    return path


def get_json(url: str, limits: Limits | None = None, headers: Mapping[str, str] | None = None) -> Any:
    """A small JSON answer (1 MiB at most)."""
    import httpx

    limits = limits or Limits()
    with _client(limits) as client:
        try:
            with _open(client, url, limits, dict(headers or {})) as response:
                data = b""
                for piece in response.iter_bytes(_PIECE):
                    data += piece
                    if len(data) > 1 << 20:
                        raise DataError("a list larger than 1 MiB", where=url)
        except httpx.TransportError as error:
            raise ProviderError(
                f"{url}: {type(error).__name__} {error}", hint="is there a connection?"
            ) from error
    import json

    try:
        return json.loads(data)
    except ValueError as error:
        raise DataError("not JSON", where=url) from error


class _CutOff(Exception):
    """The stream ended before its announced length."""


def _client(limits: Limits) -> httpx.Client:
    import httpx

    return httpx.Client(follow_redirects=False, timeout=limits.seconds, trust_env=True)


class _open:
    """A response after redirects, each address checked, closed at the end."""

    def __init__(self, client: httpx.Client, url: str, limits: Limits, headers: dict[str, str]) -> None:
        self.client, self.url, self.limits, self.headers = client, url, limits, headers

    def __enter__(self) -> httpx.Response:
        url, headers = self.url, dict(self.headers)
        for _ in range(self.limits.redirects + 1):
            check_address(url, self.limits)
            request = self.client.build_request("GET", url, headers=headers)
            self.response = self.client.send(request, stream=True)
            if not self.response.is_redirect:
                self._check(url)
                return self.response
            self.response.close()
            target = urljoin(url, self.response.headers["location"])
            if urlsplit(target).hostname != urlsplit(url).hostname:
                headers.pop("Authorization", None)  # a token is for the host that it was given for
            url = target
        raise ProviderError(f"more than {self.limits.redirects} redirects", where=self.url)

    def _check(self, url: str) -> None:
        """The connection's own peer, since a name may have resolved anew; then status and kind."""
        stream = self.response.extensions.get("network_stream")
        peer = stream.get_extra_info("server_addr") if stream is not None else None
        proxied = bool(self.client._mounts)
        try:
            if peer and not self.limits.private and not proxied:
                _check_public(str(peer[0]), str(urlsplit(url).hostname))
            if self.response.status_code >= 400 and self.response.status_code != 416:
                raise ProviderError(
                    f"the server says {self.response.status_code} {self.response.reason_phrase}", where=url
                )
            kind = self.response.headers.get("content-type", "").lower()
            if kind.startswith(self.limits.refused):
                raise DataError(f"a page ({kind}), not data", where=url)
        except BaseException:
            self.response.close()
            raise

    def __exit__(self, *error: object) -> None:
        self.response.close()


def _pull(
    client: httpx.Client,
    url: str,
    part: Path,
    limits: Limits,
    progress: Progress,
    headers: dict[str, str],
) -> None:
    headers["Accept-Encoding"] = "identity"  # what comes is written as it is
    have = part.stat().st_size if part.exists() else 0
    version = part.with_name(part.name + ".version")
    if have:
        headers["Range"] = f"bytes={have}-"
        if version.is_file():  # the rest of another file than the part's is not wanted: then all of it
            headers["If-Range"] = version.read_text(encoding="utf-8")
    with _open(client, url, limits, headers) as response:
        if response.status_code == 416 and have:  # nothing is left to send
            whole = response.headers.get("content-range", "").rpartition("/")[2]
            if whole.isdigit() and int(whole) != have:
                part.unlink()
                raise _CutOff(f"the part is of another file: {have} bytes of {whole}")
            return
        if packed := response.headers.get("content-encoding", "").replace("identity", ""):
            raise DataError(f"the server sends it packed ({packed}), though asked not to", where=url)
        if response.status_code != 206:
            have = 0
            _note_version(response, version)
        total = _total(response, have)
        if total is not None and total > limits.size:
            raise DataError(
                f"{total / GIB:.1f} GiB, more than the limit of {limits.size / GIB:.1f}", where=url
            )
        with part.open("ab" if have else "wb") as stream:
            for piece in response.iter_raw(_PIECE):
                have += len(piece)
                if have > limits.size:
                    raise DataError(f"more than the limit of {limits.size / GIB:.1f} GiB", where=url)
                stream.write(piece)
                progress(part.stem, have, total)
        if total is not None and have < total:
            raise _CutOff(f"after {have} of {total} bytes")


def _note_version(response: httpx.Response, path: Path) -> None:
    """Keep what tells whether a later answer goes on with the same file."""
    tag = response.headers.get("etag", "")
    strong = tag.startswith('"')  # weak ones tell nothing
    found = tag if strong else response.headers.get("last-modified", "")
    if found.isascii() and found:
        path.write_text(found, encoding="utf-8")
    else:
        path.unlink(missing_ok=True)


def _total(response: httpx.Response, have: int) -> int | None:
    length = response.headers.get("content-length", "")
    return have + int(length) if length.isdigit() else None
