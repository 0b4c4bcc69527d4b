"""Growing many items at once: who works on which, what stops it, how far it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kore.augment.asking import Asker
from kore.augment.baselines.samples import plain_samples
from kore.augment.branches import Grower
from kore.augment.fact_templates import fact_branches, fact_turns
from kore.augment.factory import check_teachers, choose_encoder, choose_teacher, make_finder
from kore.augment.filter import Screen
from kore.augment.grounding import Source
from kore.augment.images.gallery import Gallery, Views
from kore.augment.images.store import ImageStore
from kore.augment.item_linking import Neighbours, link_items
from kore.augment.templates import Templates, load_templates
from kore.augment.text import language
from kore.augment.trunk import Harvest, grow_trunk
from kore.config.schema import AugmentSection
from kore.data.records import KnowledgeItem, KnowledgeTree
from kore.errors import DataError, GateNotMet, KoreError, ProviderError
from kore.llm.cache import ReplyStore
from kore.llm.rate_limit import Cost
from kore.llm.request import Hopeless, Lasting
from kore.progress import Progress, silent

AHEAD = 2  # items in work per call in flight: while one is checked, another has a call waiting


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
        self.judge = choose_teacher(s.judge, s, self.templates, self.seed) if s.judge else None
        check_teachers(s, self.teacher, self.judge)
        self.finder = make_finder(s, self.store, self.kept)
        # without a search there is nothing to compare, and no weights to miss
        self.encoder = choose_encoder(s.encoder, needed=self.finder.provider.name != "none")
        self.gallery = Gallery(self.finder, self.encoder, s.candidates, s.near)
        self.neighbours = Neighbours(self.items) if s.negatives else None
        self.links = link_items(self.items) if s.forest else {}
        replies = ReplyStore(self.kept / "replies")
        self.cost = Cost(s.price_in, s.price_out)
        self.asker = Asker(self.teacher, s, replies, self.cost)
        self.judging = Asker(self.judge, s, replies, self.cost) if self.judge else None
        self.done = 0
        self._began = time.monotonic()
        self._first = 0
        self._lasting = False
        self._stop: KoreError | None = None

    async def grow_all(
        self, indices: Sequence[int], take: Callable[[int, dict[str, Any]], None], already: int = 0
    ) -> None:
        """Grow the items at `indices`, giving each entry to `take` as it is finished.

        Raises:
            ProviderError: some items failed; the others are finished. GateNotMet: the cost limit was
            reached.
        """
        self.done, self._first, total = already, already, already + len(indices)
        self._began = time.monotonic()
        waiting = iter(indices)
        workers = min(len(indices), AHEAD * self.settings.concurrency)
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
            self._stop.message += f"; {self.done} of {total} items are finished"
            raise self._stop
        if self.failed:
            name, reason = next(iter(self.failed.items()))
            raise ProviderError(
                f"{len(self.failed)} of {total} items failed, the first: {name}: {reason}",
                hint="the finished part is kept; the same command resumes from there"
                + (", and --keep-going leaves out what will not do" if self._lasting else ""),
            )

    async def _one(self, index: int, take: Callable[[int, dict[str, Any]], None]) -> None:
        item = self.items[index]
        try:
            entry = await self.grow_one(index)
        except GateNotMet as error:
            self._stop = error
        except (DataError, ProviderError) as error:
            if self.keep_going and isinstance(error, (DataError, Lasting)):
                take(index, {"skipped": str(error), "id": item.id})
                self.done += 1
            elif isinstance(error, ProviderError):
                self.failed[item.id] = error.message
                self._lasting |= isinstance(error, Lasting)
                if isinstance(error, Hopeless):
                    self._stop = error
            else:
                raise
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
        if self.teacher.name != "offline":  # which asks for facts by itself
            trunk = [*trunk, *fact_turns(item, trunk, self.templates, self.seed)]
            visual = [*visual, *await fact_branches(grower, visual, self.templates)]
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

    @property
    def spent(self) -> dict[str, Any]:
        """Calls, tokens and money of this run, the judge's included."""
        cost = self.cost
        return {
            "calls": cost.calls,
            "from_cache": cost.cached,
            "retries": cost.retries,
            "repairs": cost.repairs,
            "tokens_in": cost.tokens_in,
            "tokens_out": cost.tokens_out,
            "money": None if cost.money is None else round(cost.money, 6),
        }

    def _tell(self, total: int) -> None:
        cost = self.cost
        seconds = time.monotonic() - self._began
        parts = [f"{(self.done - self._first) / seconds:.1f}/s"] if seconds > 1 else []
        parts += [f"{cost.calls} calls"] if cost.calls and self.teacher.cached else []
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


def _first(group: ExceptionGroup[Exception]) -> Exception:
    for error in group.exceptions:
        return _first(error) if isinstance(error, ExceptionGroup) else error
    return group
