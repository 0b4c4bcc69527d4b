"""What an augmentation depends on: the part of the settings that shapes the output, and the items'
content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kore.artifacts.manifest import Manifest
from kore.augment.images.provider import local_folder
from kore.augment.text import fold
from kore.config.schema import AugmentSection
from kore.data.read import read_located
from kore.data.records import KnowledgeItem, encode
from kore.errors import DataError, Faults
from kore.io.files import hash_file, hash_folder
from kore.io.images import open_image

RULES = 2  # raised when the same settings would give another output
_UNSEEN = frozenset(
    [
        "concurrency",
        "requests_per_minute",
        "tokens_per_minute",
        "price_in",
        "price_out",
        "max_cost",
        "timeout",
        "retries",
        "longest_wait",
        "base_url",
        "private_addresses",
    ]
)


def shaping(settings: AugmentSection) -> dict[str, Any]:
    """The settings that shape the output; pace, prices and addresses do not."""
    values = settings.model_dump(mode="json")
    if settings.images != "http":
        values.pop("http")
    return {k: v for k, v in values.items() if k not in _UNSEEN and v is not None}


def input_hashes(items: Sequence[KnowledgeItem]) -> dict[str, str]:
    """Hashes of the items' texts and of their pictures' bytes: where the pictures lie does not matter."""
    texts, pictures = hashlib.sha256(), hashlib.sha256()
    known: dict[str, str] = {}
    for item in items:
        texts.update(encode(item.model_copy(update={"image": None})).encode())
        for place in item.images:
            if place not in known:
                path = Path(place)
                known[place] = place if "://" in place or not path.is_file() else hash_file(path)
            pictures.update(known[place].encode())
    return {"items": texts.hexdigest()[:16], "pictures": pictures.hexdigest()[:16]}


def manifest_of(
    settings: AugmentSection,
    seed: int,
    shard: tuple[int, int] | None,
    inputs: dict[str, str],
    sources: dict[str, str],
) -> Manifest:
    """The manifest of a tree folder before it is made."""
    values = shaping(settings) | {"seed": seed, "rules": RULES}
    inputs = dict(inputs)
    if shard:
        values["shard"] = f"{shard[0]}/{shard[1]}"
    if settings.templates:
        inputs["templates"] = (
            hash_file(Path(settings.templates)) if Path(settings.templates).is_file() else "missing"
        )
    if settings.images.startswith("local:"):
        folder = local_folder(settings.images)
        values["images"] = "local"
        inputs["picture folder"] = _folder_hash(folder)
        sources = {**sources, "picture folder": str(folder.resolve())}
    model, _, weights = settings.encoder.partition("/")
    if settings.images != "none" and weights and Path(weights).is_file():
        values["encoder"] = f"{model}/{Path(weights).name}"
        inputs["encoder"] = hash_file(Path(weights))
    if settings.teacher and settings.teacher.startswith("replay:"):
        path = Path(settings.teacher.partition(":")[2])
        inputs["replies"] = hash_file(path) if path.is_file() else "missing"
    return Manifest("tree", values, inputs, sources)


def _folder_hash(folder: Path) -> str:
    """Names and sizes of a large folder's pictures; the bytes too while it is small."""
    if not folder.is_dir():
        return "missing"
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    if len(files) <= 2000:
        return hash_folder(folder)
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{fold(str(path.relative_to(folder)))}:{path.stat().st_size}\n".encode())
    return digest.hexdigest()[:16]


def shard_indices(count: int, shard: tuple[int, int] | None) -> list[int]:
    """The items of a shard: every N-th."""
    number, of = shard or (1, 1)
    return list(range(number - 1, count, of))


def check_ids(items: Sequence[KnowledgeItem]) -> None:
    """Refuse an empty list and ids that occur twice.

    Raises:
        DataError: naming the ids.
    """
    faults, seen = Faults(), set[str]()
    for item in items:
        if item.id in seen:
            faults.add(repeated_id(item.id))
        seen.add(item.id)
    faults.check()
    if not items:
        raise DataError("no items")


def repeated_id(id_: str, where: str | None = None, first: str | None = None) -> DataError:
    """The error for an item whose id an item before it has; `where` and `first` are their places."""
    message = f"two items have the id {id_!r}" + (f", the first at {first}" if first else "")
    return DataError(message, where=where, hint="samples are named after their item's id")


def read_checked(source: str, *, image_root: Path | None = None) -> list[tuple[str, KnowledgeItem]]:
    """Read items, with their ``file:line``, that must each have an id of their own and images that open.

    Raises:
        DataError: every bad record, repeated id and missing or broken image, each with ``file:line``.
    """
    faults = Faults()
    items: list[tuple[str, KnowledgeItem]] = []
    places: dict[str, str] = {}
    for place, item in read_located(KnowledgeItem, source, image_root=image_root, on_error=faults.add):
        where = f"{place}: item {item.id}"
        if item.id in places:
            faults.add(repeated_id(item.id, place, places[item.id]))
        for image in item.images:
            try:
                if "://" not in image:
                    open_image(image, where=where)
            except DataError as error:
                faults.add(error)
        places.setdefault(item.id, place)
        items.append((place, item))
    faults.check()
    return items
