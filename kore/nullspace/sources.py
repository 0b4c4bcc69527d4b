"""Where calibration samples come from: demo[:SUITE], onevision, FILE.jsonl, bench:NAME, each with a count.

Draws are seeded; in onevision and benchmarks a sample whose picture cannot be opened
is replaced by the next one of the draw, in a file of the user it is an error.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

from kore.artifacts.run import data_root
from kore.data.benchmark_prompts import DEFAULT_FORM, PromptForm
from kore.data.objects import is_records
from kore.data.read import read_located
from kore.data.records import Sample
from kore.demo.archive import demo_data
from kore.errors import DataError, Faults, MissingArtefact, UsageError
from kore.nullspace.layer_selection import is_number

T = TypeVar("T")
OWN = "--samples FILE.jsonl (what the model should keep answering), bench:NAME, or self:256 (it writes them)"


@dataclass(frozen=True)
class Source:
    """One source of samples.

    Attributes:
        kind: demo, onevision, file or bench.
        name: the file's path, the benchmark's name, or the demo's suite (demo: all of them).
        count: samples to draw; for onevision the total over its four categories.
        form: protocol and style of a benchmark's prompts.
    """

    kind: str
    name: str
    count: int
    form: PromptForm = DEFAULT_FORM

    @property
    def label(self) -> str:
        """For people."""
        name = Path(self.name).stem if self.kind == "file" else self.name
        return f"{self.kind} {name}" if self.kind == "bench" else name


def parse_source(text: str, default: int, form: PromptForm = DEFAULT_FORM) -> Source:
    """Read ``demo``, ``demo:easy-vqa``, ``onevision:256``, ``FILE.jsonl:100``, ``bench:MME:256``.

    Args:
        text: the source, with an optional count at its end.
        default: samples if it names no count; of onevision, over its four categories together.

    Raises:
        UsageError: no such kind of source.
    """
    head, _, tail = text.rpartition(":")
    count = int(tail) if head and is_number(tail) else None
    name = head if count is not None else text
    if count == 0:
        raise UsageError(f"samples: {text!r} asks for none")
    if name == "demo" or (name.startswith("demo:") and len(name) > len("demo:")):
        return Source("demo", name.removeprefix("demo:"), count or default)
    if name == "onevision":
        return Source("onevision", "onevision", count or default)
    if name.startswith("bench:") and len(name) > len("bench:"):
        return Source("bench", name.removeprefix("bench:"), count or default, form)
    if name == "neighbours":
        raise UsageError(
            "samples: neighbours are made from items, so only kore inject takes them",
            hint="name the file that it wrote: neighbours-*.jsonl in the run's folder",
        )
    if is_records(Path(name)):
        return Source("file", name, count or default)
    raise UsageError(
        f"samples: unknown source {text!r}",
        hint="one of demo[:SUITE], onevision, FILE.jsonl, bench:NAME, self, each with an optional :COUNT",
    )


def parse_sources(texts: Sequence[str], default: int, form: PromptForm = DEFAULT_FORM) -> list[Source]:
    """Read every source; see `parse_source`.

    Raises:
        UsageError: none is named, or one of no such kind.
    """
    if not texts:
        raise UsageError(
            "no old samples are named, and there are none for this model by default", hint=f"name some: {OWN}"
        )
    return [parse_source(text, default, form) for text in texts]


def collect(
    sources: Sequence[Source],
    seed: int,
    work: Path,
    *,
    onevision: str | None = None,
    on_skip: Callable[[str], None] | None = None,
    images: bool = True,
) -> list[Sample]:
    """Draw the samples of all sources, in order.

    Args:
        images: False leaves out samples with images: the model reads none.
        work: where pictures that live inside a parquet or TSV file are written.
        onevision: the copy of LLaVA-OneVision-Data; default: ``onevision`` in the data folder.
        on_skip: told about each sample that was passed over, and of a source that held too few.

    Raises:
        MissingArtefact: a source is not here; names the command that fetches it.
        DataError: a broken record, or no usable sample at all.
    """
    found: list[Sample] = []
    for source in sources:
        drawn = _drawn(source, seed, work, onevision, on_skip)
        if not drawn:
            raise DataError("no usable sample", where=source.label)
        if not images:
            drawn = _bare(drawn, source, on_skip)
        if len(drawn) < source.count and on_skip is not None:
            on_skip(f"{source.label}: {len(drawn)} samples, {source.count} were asked for")
        found += drawn
    return found


def collect_others(
    sources: Sequence[Source],
    seed: int,
    work: Path,
    taken: Sequence[Sample],
    each: int,
    *,
    onevision: str | None = None,
    on_skip: Callable[[str], None] | None = None,
    images: bool = True,
) -> list[Sample]:
    """Draw `each` more samples of every source, none of them among `taken`.

    Args:
        on_skip: told of a source that has too few left.

    Returns:
        As many as are left; none where all are among `taken`.
    """
    from kore.nullspace.batches import sample_hash

    # by content: a picture that lives inside a TSV or parquet file is unpacked again, to another path
    known = {sample_hash(s) for s in taken}
    found: list[Sample] = []
    for source in sources:
        wider = replace(source, count=source.count + 4 * each)
        drawn = _drawn(wider, seed + 1, work, onevision, None)
        new = [s for s in drawn if sample_hash(s) not in known and (images or not s.images)]
        # spread over the draw, which goes through a source's categories one after the other
        step = max(len(new) // each, 1)
        spread = new[::step][:each]
        if len(spread) < each and on_skip is not None:
            on_skip(f"{source.label}: {len(spread)} samples are left to hold out, {each} were asked for")
        found += spread
    return found


def _bare(drawn: Sequence[Sample], source: Source, on_skip: Callable[[str], None] | None) -> list[Sample]:
    """The samples without an image.

    Raises:
        DataError: all have one.
    """
    bare = [sample for sample in drawn if not sample.images]
    if not bare:
        raise DataError(
            "every sample shows an image, and the model reads none",
            where=source.label,
            hint="name text conversations with --samples FILE.jsonl",
        )
    if len(bare) < len(drawn) and on_skip is not None:
        on_skip(
            f"{source.label}: {len(drawn) - len(bare)} samples with images left out: the model reads none"
        )
    return bare


def _drawn(
    source: Source,
    seed: int,
    work: Path,
    onevision: str | None,
    on_skip: Callable[[str], None] | None,
) -> list[Sample]:
    if source.kind == "onevision":
        from kore.data.onevision import draw

        root = Path(onevision) if onevision else data_root() / "onevision"
        return draw(root, source.count, seed, work / "pictures", on_skip)
    if source.kind == "bench":
        from kore.nullspace.bench import draw_bench

        return draw_bench(
            data_root(), source.name, source.count, seed, work / "pictures", on_skip, source.form
        )
    path = demo_samples() if source.kind == "demo" else Path(source.name)
    if not path.exists():
        raise MissingArtefact(
            f"no such file: {path}", hint="--samples takes demo, onevision, FILE.jsonl, bench:NAME"
        )
    records = list(read_located(Sample, path))
    if source.kind == "demo" and source.name != "demo":
        suites = sorted({str(r.extra.get("suite")) for _, r in records})
        if source.name not in suites:
            raise UsageError(f"samples: the demo has no suite {source.name}", hint=", ".join(suites))
        records = [(where, r) for where, r in records if r.extra.get("suite") == source.name]
    return _opened(islice(shuffled(records, seed), source.count))


def demo_samples() -> Path:
    """The old samples that ship with the embedded base."""
    return demo_data() / "old.jsonl"


def shuffled(records: Sequence[T], seed: int) -> Iterator[T]:
    """All records in a seeded order."""
    order = list(range(len(records)))
    random.Random(seed).shuffle(order)
    return (records[i] for i in order)


def _opened(records: Iterable[tuple[str, Sample]]) -> list[Sample]:
    """The samples of a file, whose pictures must all open: nobody but its owner can replace one."""
    from kore.io.images import open_image

    opened, faults = [], Faults()
    for where, sample in records:
        for image in sample.images:
            try:
                open_image(image, where)
            except DataError as error:
                faults.add(error)
        opened.append(sample)
    faults.check()
    return opened
