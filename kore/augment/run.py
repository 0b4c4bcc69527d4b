"""KORE-AUGMENTATION as a whole: items in, a folder with trees, samples and evaluation questions out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kore.artifacts.manifest import NAME, claimed, read_manifest
from kore.artifacts.run import cache_home
from kore.augment.fit import Budget, FitReport, Fitter
from kore.augment.images.store import ImageStore
from kore.augment.inputs import check_ids, input_hashes, manifest_of, shard_indices
from kore.augment.pipeline import Growth
from kore.augment.worklog import WorkLog
from kore.augment.writer import finish
from kore.config.schema import AugmentSection
from kore.data.records import KnowledgeItem
from kore.errors import Interrupted
from kore.io.files import read_json
from kore.progress import Progress, silent


@dataclass(frozen=True)
class Report:
    """The result: where the files are, and what came out.

    Attributes:
        values: report.json.
        state: fresh, resume or done, as `kore.artifacts.manifest.claimed` says it.
        spent: calls, tokens and money of this run alone (report.json counts what all replies took, whenever).
    """

    folder: Path
    values: dict[str, Any]
    state: str
    spent: dict[str, Any] = field(default_factory=dict)

    @property
    def fit(self) -> FitReport | None:
        """What was split and left out; None where nothing was measured."""
        value = self.values.get("fit")
        return FitReport.from_json(value) if value else None

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
    budget: Budget | None = None,
    places: Mapping[str, str] | None = None,
) -> Report:
    """Grow items into `out`: tree.jsonl, samples.jsonl, eval.jsonl, rejected.jsonl, report.json, images/.

    Finished work is kept after every item: the same call goes on after a kill, and does nothing when all is
    done.

    Args:
        items: with absolute picture paths (as `kore.data.read.read_records` gives them).
        shard: ``(I, N)``: only every N-th item, from the I-th (1-based).
        keep_going: leave out items whose picture is missing or broken, or whose calls the teacher cannot
            take, rather than stop.
        sources: name -> path of the inputs, for the manifest.
        budget: what the model can hold; longer samples are split. Without it nothing is.
        places: item id -> ``file:line``, for what is left out.

    Raises:
        DataError, UsageError: bad input or choice. ProviderError: a teacher or search failed, the finished
        part is kept. GateNotMet: ``max_cost`` reached.
    """
    check_ids(items)
    manifest = manifest_of(settings, seed, shard, input_hashes(items), sources or {})
    if budget and (restart or not _unmeasured(out)):
        manifest.settings["max_length"] = budget.limit
    elif budget:
        manifest.settings.pop("names", None)  # older than this setting, too
    growth = Growth(
        items, settings, seed, ImageStore(out / "images", "images"), cache_home(), progress, keep_going
    )
    with ExitStack() as stack:
        state = stack.enter_context(claimed(out, manifest, restart=restart))
        if state == "done":
            return Report(out, read_json(out / "report.json"), state)
        log = stack.enter_context(WorkLog(out))
        cost = growth.cost
        cost.before_in, cost.before_out, cost.on_paid = log.paid_in, log.paid_out, log.pay
        chosen = shard_indices(len(items), shard)
        left = [i for i in chosen if i not in log]
        if left:
            try:
                asyncio.run(growth.grow_all(left, log.add, already=len(chosen) - len(left)))
            except KeyboardInterrupt:
                raise Interrupted(
                    f"{len(log)} of {len(chosen)} items are finished",
                    hint="the same command resumes from there",
                ) from None
        values = finish(
            out,
            log_entries(log),
            growth.templates,
            settings,
            seed,
            growth.teacher.name,
            growth.encoder.name if growth.encoder else "none",
            fitter=Fitter(budget, places or {}, out) if budget else None,
        )
        log.remove()
        manifest.finished(**{k: values["statistics"][k] for k in ("items", "samples", "images")}).write(out)
    return Report(out, values, state, growth.spent)


def log_entries(log: WorkLog) -> Iterator[tuple[int, dict[str, Any]]]:
    """The log's entries in the items' order."""
    for index in log.indices():
        yield index, log.get(index)


def _unmeasured(out: Path) -> bool:
    """Whether a finished tree lies here that was made without a token budget."""
    old = read_manifest(out) if (out / NAME).exists() else None
    return old is not None and old.status == "done" and "max_length" not in old.settings
