"""Samples as a stream, in the items' order, as soon as each item is finished."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kore.artifacts.run import cache_home
from kore.augment.images.store import ImageStore
from kore.augment.inputs import check_ids, shard_indices
from kore.augment.pipeline import Growth
from kore.augment.samples import samples
from kore.augment.text import language
from kore.config.schema import AugmentSection
from kore.data.records import KnowledgeItem, KnowledgeTree, Sample
from kore.errors import KoreError


def stream(
    items: Sequence[KnowledgeItem],
    settings: AugmentSection,
    *,
    seed: int = 0,
    shard: tuple[int, int] | None = None,
    keep_going: bool = False,
    on_skip: Callable[[str], None] = lambda reason: None,
) -> Iterator[Sample]:
    """Grow items and yield their samples with absolute picture paths; the pictures lie in the cache folder.

    Raises:
        What `kore.augment.grow` raises, after the samples of the items before the failure.
    """
    check_ids(items)
    pictures = (cache_home() / "images").resolve()
    growth = Growth(
        items, settings, seed, ImageStore(pictures, str(pictures)), cache_home(), keep_going=keep_going
    )
    indices = shard_indices(len(items), shard)
    arrived: queue.SimpleQueue[tuple[int, dict[str, Any]] | BaseException | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            asyncio.run(growth.grow_all(indices, lambda index, entry: arrived.put((index, entry))))
            arrived.put(None)
        except BaseException as error:
            arrived.put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    waiting: dict[int, dict[str, Any]] = {}
    order = iter(indices)
    following = next(order, None)
    while (got := arrived.get()) is not None:
        if isinstance(got, BaseException):
            if isinstance(got, KoreError):
                thread.join()
            raise got
        waiting[got[0]] = got[1]
        while following in waiting:
            entry = waiting.pop(following)
            following = next(order, None)
            if "skipped" in entry:
                on_skip(f"left out: {entry['skipped']}")
                continue
            tree = KnowledgeTree.from_json(entry["tree"])
            words = growth.templates[language(tree.item.text or tree.item.title)]
            yield from samples(tree, words, seed, settings.copies, names=bool(settings.names))
    thread.join()
