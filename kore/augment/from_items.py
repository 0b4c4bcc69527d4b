"""Augmentation from Python: items as a file, records or dicts, settings as keywords."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from kore.augment.run import Report, grow
from kore.config.model_defaults import resolve_training
from kore.data.evoke import read_items
from kore.data.records import KnowledgeItem
from kore.errors import DataError
from kore.progress import Progress, silent

Items = str | Path | Iterable[KnowledgeItem | Mapping[str, Any]]


def augment(
    items: Items,
    output: str | Path,
    *,
    teacher: str | None = None,
    profile: str = "",
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    shard: tuple[int, int] | None = None,
    image_root: str | Path | None = None,
    form: Literal["auto", "items", "evoke"] = "auto",
    keep_going: bool = False,
    restart: bool = False,
    progress: Progress = silent,
    on_skip: Callable[[str], None] = warnings.warn,
) -> Report:
    """Write training samples and evaluation questions about new items; a repeated call resumes.

    Args:
        items: a file (JSONL or a JSON list), or `KnowledgeItem` records and dicts.
        output: the folder for samples.jsonl, eval.jsonl, tree.jsonl, report.json and images/.
        teacher: who writes: openai:MODEL, hf:PATH, offline or replay:FILE. Default: the profile's.
        profile: a shipped profile's name, or a TOML file. Default: what suits the model.
        settings: settings by dotted key, e.g. ``{"augment.copies": 4}``.
        shard: ``(I, N)``: only the I-th of N parts.
        image_root: the folder of relative image paths.
        form: the records' form, items or EVOKE's.
        keep_going: leave out items that cannot be read or asked about, rather than stop.
        restart: discard what is in `output`.
        on_skip: called with the place and reason of each record that keep_going leaves out while reading.

    Raises:
        DataError: a bad item, with its place. ProfileError, UsageError: a bad setting.
        ProviderError: the teacher failed after its retries; finished items are kept.
    """
    given = {"augment.teacher": teacher, **(settings or {})}
    section = resolve_training(profile, given).profile.augment
    sources = (
        {"items": str(Path(items).resolve())} if isinstance(items, (str, Path)) and str(items) != "-" else {}
    )
    found = read(items, image_root=image_root, form=form, on_skip=on_skip if keep_going else None)
    return grow(
        found,
        section,
        Path(output),
        seed=seed,
        shard=shard,
        restart=restart,
        keep_going=keep_going,
        progress=progress,
        sources=sources,
    )


def read(
    items: Items,
    *,
    image_root: str | Path | None = None,
    form: Literal["auto", "items", "evoke"] = "auto",
    on_skip: Callable[[str], None] | None = None,
) -> list[KnowledgeItem]:
    """Items from a file, records or dicts.

    Args:
        on_skip: called with each record that is left out; None: a bad one is an error.

    Raises:
        DataError: a bad record, or none that can be read.
    """
    found: list[KnowledgeItem] = []

    def skipped(error: DataError) -> None:
        if on_skip is None:
            raise error
        on_skip(str(error))

    if isinstance(items, (str, Path)):
        root = Path(image_root) if image_root else None
        found = list(read_items(str(items), form=form, image_root=root, on_error=skipped))
    else:
        for index, item in enumerate(items):
            try:
                if not isinstance(item, KnowledgeItem):
                    item = KnowledgeItem.from_json(dict(item), f"items[{index}]")
                found.append(item)
            except DataError as error:
                skipped(error)
    if not found:
        raise DataError("no item could be read", where=str(items) if isinstance(items, (str, Path)) else None)
    return found
