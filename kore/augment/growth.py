"""KORE-AUGMENTATION as a whole: items in, a folder with trees, samples and evaluation questions out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kore.augment.asking import Asker
from kore.augment.branches import Grower
from kore.augment.choose import choose_encoder, choose_teacher, make_finder
from kore.augment.finish import finish
from kore.augment.grounding import Source
from kore.augment.images.gallery import Gallery, Views
from kore.augment.images.store import ImageStore
from kore.augment.inputs import input_hashes, manifest_of
from kore.augment.links import Neighbours, link_items
from kore.augment.plain.samples import needs_model, plain_samples
from kore.augment.replies import ReplyStore, cache_home
from kore.augment.screen import Screen
from kore.augment.templates import Templates, load_templates
from kore.augment.text import language
from kore.augment.trunk import Harvest, grow_trunk
from kore.augment.worklog import WorkLog
from kore.errors import DataError, Interrupted, KoreError, ProviderError, UsageError
from kore.files import read_json
from kore.manifest import claim
from kore.progress import Progress, silent
from kore.records import KnowledgeItem, KnowledgeTree
from kore.settings import AugmentSection

STREAM_AHEAD = 4  # items in work per call in flight: enough to keep all calls busy


@dataclass(frozen=True)
class Report:
    """The result: report.json's content and where the files are."""

    folder: Path
    values: dict[str, Any]
    state: str

    @property
    def samples(self) -> Path:
        """samples.jsonl"""
        return self.folder / "samples.jsonl"

    @property
    def tree(self) -> Path:
        """tree.jsonl"""
        return self.folder / "tree.jsonl"

    @property
    def questions(self) -> Path:
        """eval.jsonl"""
        return self.folder / "eval.jsonl"


@dataclass
class Growth:
    """Everything that growing items needs, for one output folder."""

    items: Sequence[KnowledgeItem]
    settings: AugmentSection
    seed: int
    store: ImageStore
    kept: Path
    progress: Progress = silent
    keep_going: bool = False
    failed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        s = self.settings
        self.templates = load_templates(Path(s.templates) if s.templates else None)
        self.teacher = choose_teacher(s.teacher, s, self.templates, self.seed)
        if needs_model(s.strategy) and s.teacher == "offline":
            raise UsageError(
                f"strategy {s.strategy} rephrases by a model", hint="--teacher openai:MODEL or hf:PATH"
            )
        self.judge = choose_teacher(s.judge, s, self.templates, self.seed) if s.judge else None
        self.finder = make_finder(s, self.store, self.kept)
        self.gallery = Gallery(self.finder, choose_encoder(s.encoder), s.candidates, s.near)
        self.neighbours = Neighbours(self.items) if s.negatives else None
        self.links = link_items(self.items) if s.forest else {}
        self.done = 0
        self._stop: KoreError | None = None

    async def grow_all(
        self, indices: Sequence[int], take: Callable[[int, dict[str, Any]], None], already: int = 0
    ) -> None:
        """Grow the items at `indices`, giving each entry to `take` as it is finished.

        Raises:
            ProviderError: some items failed; the others are finished. Interrupted: the cost limit was
            reached.
        """
        replies = ReplyStore(self.kept / "replies")
        self.asker = Asker(self.teacher, self.settings, replies)
        self.judging = Asker(self.judge, self.settings, replies) if self.judge else None
        self.done, total = already, already + len(indices)
        waiting = iter(indices)
        workers = min(len(indices), max(1, self.settings.concurrency))
        self._tell(total)

        async def work() -> None:
            for index in waiting:
                if self._stop is not None:
                    return
                await self._one(index, take)
                self._tell(total)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(work())
        except ExceptionGroup as group_error:
            raise _first(group_error) from group_error
        finally:
            await asyncio.gather(
                self.teacher.close(), self.finder.close(), *([self.judge.close()] if self.judge else [])
            )
        if self._stop is not None:
            raise self._stop
        if self.failed:
            name, reason = next(iter(self.failed.items()))
            raise ProviderError(
                f"{len(self.failed)} of {total} items failed, the first: {name}: {reason}",
                hint="the finished part is kept; the same command goes on from there",
            )

    async def _one(self, index: int, take: Callable[[int, dict[str, Any]], None]) -> None:
        item = self.items[index]
        try:
            entry = await self.grow_one(index)
        except Interrupted as error:
            self._stop = error
        except ProviderError as error:
            self.failed[item.id] = error.message
            if _hopeless(error):
                self._stop = error
        except DataError as error:
            if not self.keep_going:
                raise
            take(index, {"skipped": str(error), "id": item.id})
            self.done += 1
        else:
            take(index, entry)
            self.done += 1

    async def grow_one(self, index: int) -> dict[str, Any]:
        """One item's tree, with what was thrown away for it and what its replies took."""
        item = self.items[index]
        templates = self.templates[language(item.text or item.title)]
        harvest = Harvest()
        views = await self.gallery.views(item)
        screen = Screen(self.settings.grounding, self.teacher.name, self.judging, self.seed)
        source = Source.of(item)
        grower = Grower(item, templates, self.asker, screen, source, self.seed, views, self.gallery, harvest)
        if self.settings.strategy != "kore":
            return await self._grow_plain(item, templates, grower, harvest)
        linked = self.links.get(index)
        trunk, caption, visual, hops = await _together(
            grow_trunk(item, templates, self.asker, screen, source, self.seed, harvest),
            grower.caption(),
            grower.vqa(),
            grower.hops(self.items[linked[0]], linked[1]) if linked else _nothing(),
        )
        negative = (
            self.neighbours.negative(index, self.settings.negatives, self.seed) if self.neighbours else None
        )
        branches = [
            grower.recognition(),
            grower.recognition(self.items[negative]) if negative is not None else None,
        ]
        tree = KnowledgeTree(
            item=_with_views(item, views),
            trunk=trunk,
            branches=[b for b in (*branches, caption, *visual, *hops) if b is not None],
            extra={"images": views.record()},
        )
        return {
            "tree": tree.to_json(),
            "rejected": sorted(harvest.rejected, key=lambda r: (r["task"], r["question"])),
            "notes": sorted(harvest.notes),
            "usage": dict(harvest.usage.__dict__),
            "sources": self._sources(tree),
        }

    async def _grow_plain(
        self, item: KnowledgeItem, templates: Templates, grower: Grower, harvest: Harvest
    ) -> dict[str, Any]:
        """One item by a plain augmentation; where questions cost nothing, also those for evaluation."""
        made = await plain_samples(item, templates, self.settings, self.seed, grower, self.store)
        visual = [] if self.teacher.cached else await grower.vqa()
        tree = KnowledgeTree(
            item=_with_views(item, grower.views),
            trunk=[],
            branches=visual,
            extra={
                "images": grower.views.record(),
                "plain": {"strategy": self.settings.strategy, "samples": made},
            },
        )
        return {
            "tree": tree.to_json(),
            "rejected": [],
            "notes": sorted(harvest.notes),
            "usage": dict(harvest.usage.__dict__),
            "sources": self._sources(tree),
        }

    def _sources(self, tree: KnowledgeTree) -> dict[str, Any]:
        """Where the tree's pictures come from, for those that came from somewhere."""
        images = tree.extra["images"]
        shown = [*tree.item.images, images.get("held_out"), *(b.image for b in tree.branches)]
        names = {Path(image).name for image in shown if image}
        return {name: self.finder.sources[name] for name in sorted(names & self.finder.sources.keys())}

    def _tell(self, total: int) -> None:
        cost = self.asker.cost
        parts = [f"{cost.calls} calls"] if cost.calls and self.teacher.cached else []
        parts += [f"{cost.cached} from the cache"] if cost.cached else []
        parts += [f"{cost.money:.4g} spent"] if cost.money is not None else []
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        self.progress("augment", self.done, total, ", ".join(parts))


async def _nothing() -> list[Any]:
    return []


async def _together(*parts: Any) -> tuple[Any, ...]:
    """Await all; the first failure is raised only when none is still running, so that paid replies are
    kept."""
    results = await asyncio.gather(*parts, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return tuple(results)


def _with_views(item: KnowledgeItem, views: Views) -> KnowledgeItem:
    """The item with its pictures' stored paths."""
    own = [*views.own, *([views.held_out] if views.held_out and len(item.images) > len(views.own) else [])]
    if not own:
        return item
    return item.model_copy(update={"image": own[0] if len(own) == 1 else own})


def _hopeless(error: ProviderError) -> bool:
    """Whether every other call would fail likewise (a wrong key, an unknown model)."""
    return bool(getattr(error, "hopeless", False))


def _first(group: ExceptionGroup[Exception]) -> Exception:
    for error in group.exceptions:
        return _first(error) if isinstance(error, ExceptionGroup) else error
    return group


def grow(
    items: Sequence[KnowledgeItem],
    settings: AugmentSection,
    out: Path,
    *,
    seed: int = 0,
    shard: tuple[int, int] | None = None,
    restart: bool = False,
    keep_going: bool = False,
    progress: Progress = silent,
    sources: dict[str, str] | None = None,
) -> Report:
    """Grow items into `out`: tree.jsonl, samples.jsonl, eval.jsonl, rejected.jsonl, report.json, images/.

    Finished work is kept after every item: the same call goes on after a kill, and does nothing when all is
    done.

    Args:
        items: with absolute picture paths (as `kore.records.read_records` gives them).
        shard: ``(I, N)``: only every N-th item, from the I-th (1-based).
        keep_going: leave out items whose picture is missing or broken, rather than stop.
        sources: name -> path of the inputs, for the manifest.

    Raises:
        DataError, UsageError: bad input or choice. ProviderError: a teacher or search failed, the finished
        part is kept. Interrupted: ``max_cost`` reached.
    """
    check_ids(items)
    manifest = manifest_of(settings, seed, shard, input_hashes(items), sources or {})
    growth = Growth(
        items, settings, seed, ImageStore(out / "images", "images"), cache_home(), progress, keep_going
    )
    state = claim(out, manifest, restart=restart)
    if state == "done":
        return Report(out, read_json(out / "report.json"), state)
    with ExitStack() as stack:
        log = stack.enter_context(WorkLog(out))
        chosen = shard_indices(len(items), shard)
        left = [i for i in chosen if i not in log]
        if left:
            asyncio.run(growth.grow_all(left, log.add, already=len(chosen) - len(left)))
        values = finish(
            out,
            log_entries(log),
            growth.templates,
            settings,
            seed,
            growth.teacher.name,
            growth.gallery.encoder.name,
        )
        log.remove()
    manifest.finished(**{k: values["statistics"][k] for k in ("items", "samples", "images")}).write(out)
    return Report(out, values, state)


def log_entries(log: WorkLog) -> Iterator[tuple[int, dict[str, Any]]]:
    """The log's entries in the items' order."""
    for index in log.indices():
        yield index, log.get(index)


def shard_indices(count: int, shard: tuple[int, int] | None) -> list[int]:
    """The items of a shard: every N-th."""
    number, of = shard or (1, 1)
    return list(range(number - 1, count, of))


def check_ids(items: Sequence[KnowledgeItem]) -> None:
    """Refuse an empty list and ids that occur twice.

    Raises:
        DataError: naming the id.
    """
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise DataError(
                f"two items have the id {item.id!r}", hint="samples are named after their item's id"
            )
        seen.add(item.id)
    if not items:
        raise DataError("no items")
