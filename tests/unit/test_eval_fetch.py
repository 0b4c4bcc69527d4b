"""Downloads are bounded, resumable, and never reach a private address unless told to."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from kore.config.schema import ONEVISION_SUBSETS
from kore.errors import DataError, ProviderError, UsageError
from kore.evaluation.benchmark_files import Fetcher, unpack
from kore.io.download import Limits, download, get_json, is_public
from kore.progress import silent

DATA = bytes(range(256)) * 4000
LOCAL = Limits(private=True, seconds=5)


class Server(BaseHTTPRequestHandler):
    """A mirror with every way of misbehaving."""

    asked: ClassVar[list[tuple[str, str | None]]] = []
    versions: ClassVar[list[str | None]] = []
    cut = 0
    tag = '"one"'

    def log_message(self, format: str, *args: object) -> None:
        return

    def do_GET(self) -> None:
        Server.asked.append((self.path, self.headers.get("Range")))
        Server.versions.append(self.headers.get("If-Range"))
        if self.path.startswith("/loop"):
            self._head(302, location="/loop")
        elif self.path == "/away":
            self._head(302, location="http://10.0.0.5/x")
        elif self.path == "/moved":
            self._head(302, location="/file")
        elif self.path == "/page":
            self._send(b"<html>", kind="text/html")
        elif self.path == "/busy" and len(Server.asked) == 1:
            self._head(503, **{"retry-after": "0"})
        elif self.path == "/gone":
            self._head(404)
        elif (
            self.path == "/packs" and "gzip" in self.headers.get("Accept-Encoding", "")
        ) or self.path == "/packed":
            self._send(gzip.compress(DATA), kind="text/plain", encoding="gzip")
        elif "/tree/main/" in self.path:
            folder = self.path.rpartition("/")[2]
            entries = [{"path": f"{folder}/train-0.parquet"}, {"path": f"{folder}/readme.md"}]
            self._send(json.dumps(entries).encode(), kind="application/json")
        else:
            self._file()

    def _file(self) -> None:
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if self.headers.get("If-Range", Server.tag) != Server.tag:
            start = 0
        if start > len(DATA):
            self._head(416, **{"content-range": f"bytes */{len(DATA)}"})
            return
        body = DATA[start:]
        self.send_response(206 if start else 200)
        self.send_header("etag", Server.tag)
        self.send_header("content-type", "text/tab-separated-values")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.path == "/cut" and Server.cut < 2:
            Server.cut += 1
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.connection.close()
            return
        self.wfile.write(body)

    def _head(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", "0")
        self.end_headers()

    def _send(self, body: bytes, kind: str, encoding: str = "identity") -> None:
        self.send_response(200)
        self.send_header("content-encoding", encoding)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def mirror() -> Iterator[str]:
    Server.asked.clear()
    Server.versions.clear()
    Server.cut = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_file_arrives_whole_under_its_name_only_when_it_is_whole(mirror: str, tmp_path: Path) -> None:
    assert download(f"{mirror}/moved", tmp_path / "a" / "x.tsv", limits=LOCAL).read_bytes() == DATA
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["x.tsv"]


def test_a_cut_connection_is_gone_on_from(mirror: str, tmp_path: Path) -> None:
    assert download(f"{mirror}/cut", tmp_path / "x", limits=LOCAL).read_bytes() == DATA
    assert [r for _, r in Server.asked][1:] != [None, None]
    assert Server.versions == [None, '"one"', '"one"']
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_part_of_another_file_is_not_gone_on_from(mirror: str, tmp_path: Path) -> None:
    part, version = tmp_path / "x.part", tmp_path / "x.part.version"
    part.write_bytes(b"old" * 100)
    version.write_text('"before"')
    assert download(f"{mirror}/file", tmp_path / "x", limits=LOCAL).read_bytes() == DATA
    part.write_bytes(b"old" + DATA)
    assert download(f"{mirror}/file", tmp_path / "x", limits=LOCAL).read_bytes() == DATA


def test_what_is_written_is_the_file_and_not_its_packing(mirror: str, tmp_path: Path) -> None:
    assert download(f"{mirror}/packs", tmp_path / "x", limits=LOCAL).read_bytes() == DATA
    with pytest.raises(DataError, match=r"packed \(gzip\)"):
        download(f"{mirror}/packed", tmp_path / "y", limits=LOCAL)


def test_a_part_from_an_earlier_command_is_gone_on_from(mirror: str, tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(DATA[:1000])
    assert download(f"{mirror}/file", tmp_path / "x", limits=LOCAL).read_bytes() == DATA
    assert Server.asked == [("/file", "bytes=1000-")]


@pytest.mark.parametrize(
    ("path", "limits", "error", "words"),
    [
        ("/file", Limits(private=True, size=1000), DataError, "more than the limit"),
        ("/page", LOCAL, DataError, "not data"),
        ("/gone", LOCAL, ProviderError, "404"),
        ("/loop", LOCAL, ProviderError, "redirects"),
        ("/file", Limits(), UsageError, "only https|not an address"),
    ],
)
def test_what_is_not_the_wanted_data_is_refused(
    mirror: str, tmp_path: Path, path: str, limits: Limits, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        download(f"{mirror}{path}", tmp_path / "x", limits=limits)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/x",
        "https://10.0.0.1/x",
        "https://192.168.1.1/",
        "https://169.254.169.254/latest",
        "https://[::1]/x",
        "https://0.0.0.0/",
        "https://user:secret@8.8.8.8/",
        "ftp://8.8.8.8/x",
        "file:///etc/passwd",
        "http://8.8.8.8/",
    ],
)
def test_private_addresses_and_other_schemes_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        download(url, tmp_path / "x")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2001:4860:4860::8888", True),
        ("10.0.0.1", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("ff02::1", False),
        ("fe80::1%eth0", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:127.0.0.1", False),
        ("2002:7f00:1::1", False),
        ("2002:0a00:0001::", False),
        ("::1", False),
        ("0.0.0.0", False),
    ],
)
def test_an_address_that_wraps_a_private_one_is_private(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_a_redirect_is_checked_like_the_first_address(
    mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kore.io.download.is_public", lambda address: address == "127.0.0.1")
    limits = Limits(http=True, seconds=5)
    assert download(f"{mirror}/moved", tmp_path / "x", limits=limits).read_bytes() == DATA
    with pytest.raises(UsageError, match=r"private network \(10\.0\.0\.5\)"):
        download(f"{mirror}/away", tmp_path / "y", limits=limits)


def test_a_busy_server_is_asked_again(mirror: str, tmp_path: Path) -> None:
    assert download(f"{mirror}/busy", tmp_path / "x", limits=LOCAL).read_bytes() == DATA
    assert [path for path, _ in Server.asked] == ["/busy", "/busy"]


def test_it_works_inside_a_running_event_loop(mirror: str, tmp_path: Path) -> None:
    async def notebook() -> bytes:
        return download(f"{mirror}/file", tmp_path / "x", limits=LOCAL).read_bytes()

    assert asyncio.run(notebook()) == DATA


def test_lists_come_as_json(mirror: str) -> None:
    assert get_json(f"{mirror}/tree/main/a", LOCAL)[0]["path"] == "a/train-0.parquet"
    with pytest.raises(DataError, match=r"not JSON|larger"):
        get_json(f"{mirror}/file", LOCAL)


def _fetcher(mirror: str, folder: Path) -> Fetcher:
    return Fetcher(folder, LOCAL, silent, mirror + "/utils/", mirror)


def test_onevision_is_four_subsets_and_nothing_else(mirror: str, tmp_path: Path) -> None:
    paths = _fetcher(mirror, tmp_path).fetch("onevision")
    assert [p.parent.name for p in paths] == list(ONEVISION_SUBSETS)
    assert all(p.read_bytes() == DATA for p in paths)
    assert not any("readme" in path for path, _ in Server.asked)


def test_a_benchmark_is_fetched_once(mirror: str, tmp_path: Path) -> None:
    fetcher = _fetcher(mirror, tmp_path)
    assert fetcher.fetch("MIA-Bench") == fetcher.fetch("MIA-Bench") == [tmp_path / "MIA-Bench.tsv"]
    assert [path for path, _ in Server.asked] == ["/utils/VLMEval/Mia-Bench.tsv"]


def test_an_unknown_name_lists_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to fetch"):
        _fetcher("http://127.0.0.1:1", tmp_path).fetch("imagenet")


def test_a_zip_never_writes_outside_its_folder(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("in/a (1) é.jpg", b"x")
    assert unpack(archive, tmp_path / "out") == 1 and (tmp_path / "out" / "in" / "a (1) é.jpg").is_file()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("../evil.jpg", b"x")
    with pytest.raises(DataError, match="leaves the folder"):
        unpack(archive, tmp_path / "out")
    with pytest.raises(DataError, match="more than"):
        unpack(archive, tmp_path / "out", limit=0)
    assert not (tmp_path / "evil.jpg").exists()
