"""Pictures: which are kept, where they may come from, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import io
import json
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kore.augment import grow
from kore.augment.factory import choose_encoder, choose_provider
from kore.augment.images.commons import CommonsImages
from kore.augment.images.download import Downloader
from kore.augment.images.encoder import ClassicEncoder
from kore.augment.images.finder import Finder
from kore.augment.images.http import HttpSearch
from kore.augment.images.local import LocalImages
from kore.augment.images.provider import NoImages
from kore.augment.images.similar import most_similar
from kore.augment.images.store import LARGEST, ImageStore, check_picture, sniff
from kore.config.schema import AugmentSection, HttpImages
from kore.data.read import read_records
from kore.data.records import KnowledgeItem, KnowledgeTree, Sample
from kore.errors import DataError, MissingArtefact, ProfileError, ProviderError, UsageError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KORE_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept"


def scene(number: int, size: int = 96) -> Image.Image:
    """A picture of its own make-up: blocks of colour drawn by a seed."""
    blocks = np.random.default_rng(number).integers(0, 255, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((size, size), Image.Resampling.NEAREST)


def saved(path: Path, picture: Image.Image, **options: Any) -> Path:
    picture.save(path, **options)
    return path


def png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def test_copies_are_left_out_and_the_most_alike_kept(tmp_path: Path) -> None:
    original = saved(tmp_path / "a.png", scene(1))
    warm = Image.blend(scene(1), Image.new("RGB", (96, 96), "orange"), 0.35).rotate(8)
    found = {
        "same": saved(tmp_path / "same.png", scene(1)),
        "small.jpg": saved(tmp_path / "small.jpg", scene(1).resize((64, 64)), quality=60),
        "warm": saved(tmp_path / "warm.png", warm),
        "warm again": saved(tmp_path / "warm2.png", warm.resize((80, 80))),
        "other": saved(tmp_path / "other.png", scene(2)),
        "third": saved(tmp_path / "third.png", scene(3)),
    }
    kept, copies = most_similar(("a", original), list(found.items()), ClassicEncoder(), keep=2, near=0.99)
    assert kept[0].image in ("warm", "warm again") and len(kept) == 2
    assert {c.image for c in copies} >= {"same", "small.jpg"}
    assert len({"warm", "warm again"} & {k.image for k in kept}) == 1, "a copy of one that is kept is a copy"
    assert kept[0].score > kept[1].score


def test_the_classic_descriptor_is_of_length_one_and_tells_scenes_apart(tmp_path: Path) -> None:
    paths = [saved(tmp_path / f"{n}.png", scene(n)) for n in range(6)]
    paths.append(saved(tmp_path / "flat.png", Image.new("RGB", (40, 40), "white")))
    rows = ClassicEncoder().features(paths)
    assert rows.dtype == np.float32 and np.isfinite(rows).all()
    assert np.allclose(np.linalg.norm(rows[:6], axis=1), 1, atol=1e-5)
    cosines = rows[:6] @ rows[:6].T
    assert cosines[~np.eye(6, dtype=bool)].max() < 0.9


def test_a_local_folder_is_searched_by_file_name_and_caption(tmp_path: Path) -> None:
    for name in ("mount_fuji.png", "IMG-001.png", "fuji apple.png", "notes.txt"):
        (tmp_path / name).write_bytes(png(scene(1)))
    note = {
        "file": "IMG-001.png",
        "caption": "Mount Fuji at dawn",
        "licence": "CC0",
        "source": "https://example.org/1",
    }
    (tmp_path / "captions.jsonl").write_text(json.dumps(note) + "\n")
    images = LocalImages(tmp_path)
    found = asyncio.run(images.search("Mount Fuji", 5))
    assert [Path(f.place).name for f in found] == ["mount_fuji.png", "IMG-001.png"]
    assert found[1].licence == "CC0"
    assert asyncio.run(images.search("Kilimanjaro", 5)) == []


def test_a_word_that_many_pictures_share_finds_none_of_them_alone(tmp_path: Path) -> None:
    for name in [*(f"mount {n}" for n in "abcdefgh"), "mount fuji", "fuji at dawn"]:
        (tmp_path / f"{name}.png").write_bytes(png(scene(1)))
    found = asyncio.run(LocalImages(tmp_path).search("Mount Fuji volcano", 5))
    assert [Path(f.place).name for f in found] == ["mount fuji.png"]
    found = asyncio.run(LocalImages(tmp_path).search("Mount Fuji", 5))
    assert [Path(f.place).name for f in found] == ["mount fuji.png", "fuji at dawn.png"]


def test_branches_show_the_kept_pictures_and_evaluation_the_third(tmp_path: Path) -> None:
    folder = tmp_path / "found"
    folder.mkdir()
    original = saved(tmp_path / "original.png", scene(1))
    saved(folder / "Ardo copy.png", scene(1))
    for number in range(3):
        blended = Image.blend(scene(1), scene(5 + number), 0.25 + 0.1 * number)
        saved(folder / f"Ardo {number}.png", blended)
    text = "Ardo is a village in Norway. It was founded in 1931."
    item = KnowledgeItem(id="a", kind="entity", type="village", title="Ardo", text=text, image=str(original))
    section = AugmentSection(teacher="offline", images=f"local:{folder}")
    report = grow([item], section, tmp_path / "out")
    tree = next(read_records(KnowledgeTree, report.tree))
    images = tree.extra["images"]
    shown = {b.task: Path(b.image or "").name for b in tree.branches if b.task in ("recognition", "caption")}
    assert [shown["recognition"], shown["caption"]] == [Path(k["image"]).name for k in images["kept"][:2]]
    assert images["held_out"] == images["kept"][2]["image"]
    trained = {Path(i).name for s in read_records(Sample, report.samples) for i in s.images}
    asked = {Path(json.loads(line)["image"]).name for line in report.questions.read_text().splitlines()}
    assert asked == {Path(images["held_out"]).name} and not asked & trained
    assert [c["score"] for c in images["copies"]] == [1.0]


# --- what comes from the network -------------------------------------------------------------------------


class Web(http.server.BaseHTTPRequestHandler):
    """Serves what `pages` holds: path -> (status, headers, body)."""

    pages: dict[str, Any] = {}  # noqa: RUF012
    seen: list[tuple[str, dict[str, str]]] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.seen.append((self.path, dict(self.headers)))
        page = self.pages.get(self.path.split("?")[0], (404, {}, b""))
        status, headers, body = page.pop(0) if isinstance(page, list) else page
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[tuple[str, dict[str, Any], list[Any]]]:
    """A web server on loopback: its address, its pages, what was asked of it."""
    pages: dict[str, Any] = {}
    seen: list[Any] = []
    handler = type("Handler", (Web,), {"pages": pages, "seen": seen})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", pages, seen
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(address: str, **options: Any) -> bytes:
    async def run() -> bytes:
        downloader = Downloader(per_host=1000, **options)
        try:
            return await downloader.fetch(address)
        finally:
            await downloader.close()

    return asyncio.run(run())


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1/a.png",
        "http://localhost:8000/a.png",
        "http://10.0.0.5/a.png",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/a.png",
        "http://[::ffff:127.0.0.1]/a.png",
        "http://0.0.0.0/a.png",
        "http://2130706433/a.png",
        "file:///etc/passwd",
        "ftp://example.org/a.png",
    ],
)
def test_inner_networks_and_other_schemes_are_refused(address: str) -> None:
    with pytest.raises(DataError):
        fetch(address)


def test_a_picture_is_fetched_where_loopback_is_allowed(web: Any) -> None:
    address, pages, seen = web
    pages["/a"] = (200, {"Content-Type": "text/plain"}, png(scene(1)))
    assert fetch(f"{address}/a", private=True) == png(scene(1))
    assert "kore-inject" in seen[0][1]["User-Agent"]


def test_a_redirect_is_followed_and_checked_again(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    address, pages, _ = web
    pages["/a"] = (302, {"Location": "/b"}, b"")
    pages["/b"] = (200, {}, png(scene(1)))
    assert fetch(f"{address}/a", private=True) == png(scene(1))
    pages["/round"] = (302, {"Location": "/round"}, b"")
    with pytest.raises(ProviderError, match="too many redirects"):
        fetch(f"{address}/round", private=True)
    # the first host is let through, what it points to is looked at afresh
    monkeypatch.setattr("kore.io.download.is_public", lambda host: host == "127.0.0.1")
    pages["/inner"] = (302, {"Location": "http://10.0.0.5/a.png"}, b"")
    with pytest.raises(DataError, match=r"private network \(10\.0\.0\.5\)"):
        fetch(f"{address}/inner")


def test_what_is_no_picture_or_too_large_is_refused(web: Any) -> None:
    address, pages, _ = web
    pages["/html"] = (200, {"Content-Type": "image/png"}, b"<html><body>hello</body></html>")
    with pytest.raises(DataError, match="broken picture"):
        fetch(f"{address}/html", private=True)
    pages["/large"] = (200, {}, bytes(LARGEST + 10))
    with pytest.raises(DataError, match="larger than"):
        fetch(f"{address}/large", private=True)
    pages["/cut"] = (200, {}, png(scene(1))[:200])
    with pytest.raises(DataError, match="broken"):
        fetch(f"{address}/cut", private=True)


def test_a_busy_server_is_asked_again_and_a_missing_picture_is_not(web: Any) -> None:
    address, pages, seen = web
    pages["/a"] = [
        (503, {"Retry-After": "0.01"}, b""),
        (429, {"Retry-After": "0"}, b""),
        (200, {}, png(scene(1))),
    ]
    assert fetch(f"{address}/a", private=True)
    with pytest.raises(ProviderError, match="HTTP 404"):
        fetch(f"{address}/none", private=True)
    assert [path for path, _ in seen] == ["/a", "/a", "/a", "/none"]


def test_an_item_whose_own_picture_is_gone_is_left_out_where_asked(web: Any, tmp_path: Path) -> None:
    address, pages, _ = web
    pages["/a.png"] = (200, {}, png(scene(1)))
    text = "Ardo is a village in Norway. It was founded in 1931."
    items = [
        KnowledgeItem(
            id=name, kind="entity", type="village", title="Ardo", text=text, image=f"{address}/{name}"
        )
        for name in ("a.png", "gone.png")
    ]
    section = AugmentSection(teacher="offline", private_addresses=True)
    with pytest.raises(ProviderError, match=r"1 of 2 items failed.*gone\.png: HTTP 404") as failed:
        grow(items, section, tmp_path / "out")
    assert "--keep-going" in str(failed.value.hint)
    report = grow(items, section, tmp_path / "out", keep_going=True)
    assert report.values["statistics"]["items"] == 1 and report.values["notes"] == {"items left out": 1}
    assert "HTTP 404" in (tmp_path / "out" / "rejected.jsonl").read_text()


def test_type_is_sniffed_from_bytes() -> None:
    stream = io.BytesIO()
    scene(1).save(stream, "JPEG")
    assert sniff(stream.getvalue()) == ".jpg"
    with pytest.raises(DataError, match="1 x 1"):
        sniff(png(Image.new("RGB", (1, 1))))
    with pytest.raises(DataError, match="too large"):
        sniff(png(Image.new("1", (8000, 8000))))


def test_a_dry_run_refuses_the_picture_that_the_run_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "large.png").write_bytes(png(scene(1)))
    monkeypatch.setattr("kore.augment.images.store.LARGEST", 8)
    for look in (check_picture, ImageStore(tmp_path / "store", "images").add_file):
        with pytest.raises(DataError, match="larger than"):
            look(tmp_path / "large.png")


def test_one_host_is_asked_no_faster_than_its_share(web: Any) -> None:
    address, pages, _ = web
    pages["/a"] = (200, {}, png(scene(1)))

    async def run() -> float:
        downloader = Downloader(private=True, per_host=20)
        began = time.monotonic()
        await asyncio.gather(*(downloader.fetch(f"{address}/a") for _ in range(5)))
        await downloader.close()
        return time.monotonic() - began

    assert asyncio.run(run()) >= 4 / 20


def search(provider: Any, words: str, count: int = 5) -> Any:
    async def run() -> Any:
        try:
            return await provider.search(words, count)
        finally:
            await provider.close()

    return asyncio.run(run())


def test_commons_gives_pictures_with_licence_credit_and_page(web: Any) -> None:
    address, pages, seen = web
    info = {
        "thumburl": f"{address}/thumb.jpg",
        "url": f"{address}/full.jpg",
        "mime": "image/jpeg",
        "descriptionurl": "https://commons.wikimedia.org/wiki/File:Fuji.jpg",
        "extmetadata": {
            "LicenseShortName": {"value": "CC BY 4.0"},
            "Artist": {"value": "<a href='x'>Ann</a>"},
        },
    }
    other = {**info, "mime": "application/pdf"}
    body = {"query": {"pages": [{"index": 2, "imageinfo": [other]}, {"index": 1, "imageinfo": [info]}]}}
    pages["/api"] = (200, {}, json.dumps(body).encode())
    found = search(CommonsImages(Downloader(private=True), api=f"{address}/api"), "Mount Fuji", 3)
    assert [(f.place, f.licence, f.credit) for f in found] == [(f"{address}/thumb.jpg", "CC BY 4.0", "Ann")]
    assert (
        "gsrsearch=filetype%3Abitmap+Mount+Fuji" in seen[0][0]
        or "filetype%3Abitmap%20Mount%20Fuji" in seen[0][0]
    )
    pages["/api"] = (200, {}, b"{}")
    assert search(CommonsImages(Downloader(private=True), api=f"{address}/api"), "nothing") == []


@pytest.mark.parametrize("name", ["images-google-cse", "images-serpapi"])
def test_the_worked_profiles_find_pictures_and_keep_their_key_apart(
    web: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kore.config.resolve import resolve

    address, pages, seen = web
    given = resolve(name, environ={}).profile.augment.http
    for variable in ("GOOGLE_API_KEY", "GOOGLE_CSE_ID", "SERPAPI_KEY"):
        monkeypatch.setenv(variable, f"my-{variable}")
    link = "https://example.org/a.jpg"
    answers = {
        "images-google-cse": {
            "items": [{"link": link, "image": {"contextLink": "https://example.org"}}, {"link": 3}]
        },
        "images-serpapi": {"images_results": [{"original": link, "link": "https://example.org"}]},
    }
    pages["/search"] = (200, {}, json.dumps(answers[name]).encode())
    assert given.url is not None
    moved = given.model_copy(update={"url": f"{address}/search?{given.url.split('?')[1]}"})
    found = search(HttpSearch(moved, private=True), "Mount Fuji & co")
    assert [(f.place, f.source) for f in found] == [(link, "https://example.org")]
    asked, headers = seen[0]
    assert "q=Mount%20Fuji%20%26%20co" in asked and "{" not in asked
    if name == "images-google-cse":
        assert headers["X-Goog-Api-Key"] == "my-GOOGLE_API_KEY" and "cx=my-GOOGLE_CSE_ID" in asked
        assert "my-GOOGLE_API_KEY" not in asked
    else:
        assert "api_key=my-SERPAPI_KEY" in asked


def test_a_key_in_an_address_is_not_in_the_complaint(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    address, _, _ = web
    monkeypatch.setenv("MY_KEY", "hush-hush")
    given = HttpImages(url=f"{address}/none?q={{query}}", key_param="k", key_env="MY_KEY")
    with pytest.raises(ProviderError) as error:
        search(HttpSearch(given, private=True), "x")
    assert "hush" not in str(error.value)


def test_a_search_without_address_or_key_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProfileError, match=r"augment\.http\.url"):
        HttpSearch(HttpImages())
    with pytest.raises(UsageError, match="no MY_KEY"):
        HttpSearch(HttpImages(url="https://example.org/?q={query}", key_env="MY_KEY"))
    with pytest.raises(UsageError, match="no such source of pictures: bing"):
        choose_provider(AugmentSection(images="bing"))


def test_searches_and_downloads_are_made_once(web: Any, cache: Path, tmp_path: Path) -> None:
    address, pages, seen = web
    pages["/s"] = (
        200,
        {},
        json.dumps({"items": [{"link": f"{address}/a.png"}, {"link": f"{address}/gone.png"}]}).encode(),
    )
    pages["/a.png"] = (200, {}, png(scene(1)))
    given = HttpImages(url=f"{address}/s?q={{query}}")

    async def find() -> Any:
        downloader = Downloader(private=True, per_host=1000)
        finder = Finder(
            HttpSearch(given, private=True), ImageStore(tmp_path / "images", "images"), downloader, cache
        )
        try:
            return await finder.find("fuji", 5), finder.failures, finder.sources
        finally:
            await finder.close()

    first, failures, sources = asyncio.run(find())
    assert len(first) == 1 and "gone.png: " in failures[0]
    assert sources[Path(first[0][0]).name]["place"] == f"{address}/a.png"
    asked = len(seen)
    again, _, _ = asyncio.run(find())
    assert again == first and [p for p, _ in seen[asked:]] == ["/gone.png"]


def test_another_engine_or_another_path_on_one_host_is_another_search(
    web: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, pages, seen = web
    for name in "ab":
        pages[f"/{name}.png"] = (200, {}, png(scene(1 if name == "a" else 2)))
    both = {"link": f"{address}/a.png", "other": f"{address}/b.png"}
    pages["/s"] = (200, {}, json.dumps({"items": [both], "few": []}).encode())

    def find(**changes: Any) -> list[str]:
        given = HttpImages(**{"url": f"{address}/s?q={{query}}&cx={{MY_ENGINE}}", **changes})

        async def found() -> list[tuple[str, Path]]:
            finder = Finder(
                HttpSearch(given, private=True),
                ImageStore(tmp_path / "images", "images"),
                Downloader(private=True, per_host=1000),
                cache,
            )
            try:
                return await finder.find("fuji", 5)
            finally:
                await finder.close()

        return [record for record, _ in asyncio.run(found())]

    monkeypatch.setenv("MY_ENGINE", "one")
    monkeypatch.setenv("MY_KEY", "hush")
    first = find(key_param="k", key_env="MY_KEY")
    assert len(first) == 1
    assert find(link="other", key_param="k", key_env="MY_KEY") not in ([], first)
    assert find(results="few", key_param="k", key_env="MY_KEY") == []
    searches = [p for p, _ in seen if p.startswith("/s")]
    monkeypatch.setenv("MY_KEY", "another")  # a new key asks nothing again
    assert find(key_param="k", key_env="MY_KEY") == first
    assert [p for p, _ in seen if p.startswith("/s")] == searches
    monkeypatch.setenv("MY_ENGINE", "two")
    find(key_param="k", key_env="MY_KEY")
    assert len([p for p, _ in seen if p.startswith("/s")]) == len(searches) + 1


def test_no_search_finds_nothing() -> None:
    assert search(NoImages(), "x") == []


# --- clip ------------------------------------------------------------------------------------------------


@pytest.fixture
def open_clip(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A stand-in for the package with one model whose features are mean colours."""
    import torch

    class Tower(torch.nn.Module):
        def encode_image(self, pictures: torch.Tensor) -> torch.Tensor:
            return pictures.mean(dim=(2, 3))

    def prepare(picture: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.asarray(picture.resize((8, 8)), dtype=np.float32)).permute(2, 0, 1)

    module = types.ModuleType("open_clip")
    module.list_models = lambda: ["ViT-T"]  # type: ignore[attr-defined]
    module.list_pretrained_tags_by_model = lambda model: ["tag_a", "tag_b"]  # type: ignore[attr-defined]
    module.get_pretrained_cfg = lambda model, tag: {"hf_hub": "someone/tower/"}  # type: ignore[attr-defined]
    module.loaded = []  # type: ignore[attr-defined]

    def create(model: str, pretrained: str, weights_only: bool, **options: Any) -> Any:
        module.loaded.append((model, pretrained, weights_only))  # type: ignore[attr-defined]
        return Tower(), None, prepare

    module.create_model_and_transforms = create  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "open_clip", module)
    return module


def test_clip_features_come_from_a_weights_file_that_runs_no_code(open_clip: Any, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"x")
    encoder = choose_encoder(f"clip:ViT-T/{weights}")
    assert encoder.name == "clip:ViT-T/weights.safetensors"
    paths = [
        saved(tmp_path / f"{n}.png", Image.new("RGB", (20, 20), c))
        for n, c in enumerate(("red", "#f01000", "blue"))
    ]
    rows = encoder.features(paths)
    assert rows.shape == (3, 3) and np.allclose(np.linalg.norm(rows, axis=1), 1)
    assert rows[0] @ rows[1] > 0.9 > rows[0] @ rows[2]
    assert open_clip.loaded == [("ViT-T", str(weights), True)]


def test_missing_clip_weights_name_the_choices(open_clip: Any) -> None:
    with pytest.raises(MissingArtefact, match="tag_a, tag_b"):
        choose_encoder("clip:ViT-T/tag_c")
    with pytest.raises(MissingArtefact, match="not in the local cache") as error:
        choose_encoder("clip:ViT-T/tag_a")
    assert "someone/tower" in str(error.value.hint) and "classic" in str(error.value.hint)
    with pytest.raises(UsageError, match="no model ViT-X"):
        choose_encoder("clip:ViT-X/tag_a")


def test_without_open_clip_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(MissingArtefact, match=r"kore-inject\[clip\]"):
        choose_encoder("clip:ViT-B-32/openai")
