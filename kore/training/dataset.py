"""Training samples: read with their place, checked at once, so that no run dies at hour three.

Knows nothing of tokens; `kore.training.features` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from kore.data.read import read_located
from kore.data.records import Sample, encode
from kore.errors import DataError, Faults, UsageError
from kore.io.files import hash_bytes, hash_file
from kore.io.images import open_image

_THREADS = 8


@dataclass(frozen=True)
class Located:
    """A sample and where it was read, ``file:line``."""

    where: str
    sample: Sample


def read_training(
    source: str | Path,
    *,
    image_root: Path | None = None,
    on_skip: Callable[[str], None] | None = None,
) -> list[Located]:
    """Read and check every sample of a file or of standard input.

    Args:
        on_skip: told about samples in which the assistant says nothing: they carry no loss and are
            left out.

    Raises:
        DataError: a bad line, a missing or broken picture (with ``file:line``), nothing to train on.
    """
    kept = []
    for where, sample in read_located(Sample, source, image_root=image_root):
        if any(m.from_ == "gpt" and m.value.strip() for m in sample.conversations):
            kept.append(Located(where, sample))
        elif on_skip:
            on_skip(f"{where}: sample {sample.id} has no answer to learn from, left out")
    if not kept:
        raise DataError("no sample with an answer to learn from", where=str(source))
    check_pictures(kept)
    return kept


def located(samples: Iterable[Sample], name: str = "sample") -> list[Located]:
    """Samples that come from no file."""
    return [Located(f"{name}[{i}]", sample) for i, sample in enumerate(samples)]


def images_of(samples: Iterable[Located]) -> Iterator[tuple[str, str]]:
    """Every image of the samples, with the place of its sample."""
    return ((image, one.where) for one in samples for image in one.sample.images)


def check_pictures(samples: Sequence[Located]) -> None:
    """Decode every distinct picture once.

    Raises:
        DataError: every picture at fault, with file and line, in the order of the file.
    """
    first: dict[str, str] = {}
    for path, place in images_of(samples):
        first.setdefault(path, place)

    def fault(entry: tuple[str, str]) -> DataError | None:
        image, where = entry
        if "://" in image:
            return DataError(f"a picture must be a file here: {image}", where=where)
        try:
            open_image(image, where)
        except DataError as error:
            return error
        return None

    with ThreadPoolExecutor(_THREADS) as pool:
        faults = Faults()
        for error in filter(None, pool.map(fault, first.items())):
            faults.add(error)
    faults.check()


def check_alike(samples: Sequence[Located], *, projector: bool, divided: bool) -> None:
    """Refuse data in which one of several processes may draw no picture while another draws one.

    Such a process has no gradient for the projector, and gathers no weights of the vision tower: the others
    would wait for it without end.

    Args:
        projector: whether it is trained. divided: whether each process holds a part of every weight (ZeRO-3).

    Raises:
        UsageError: names the first sample without a picture.
    """
    bare = next((one for one in samples if not one.sample.images), None)
    mixed = any(one.sample.images for one in samples)
    if bare is not None and (projector or (divided and mixed)):
        does, other = ("train the projector", "train.projector=off")
        if not projector:
            does, other = ("divide the weights (train.zero=3)", "train.zero=2")
        raise UsageError(
            f"sample {bare.sample.id} has no picture, and several processes {does}",
            where=bare.where,
            hint=f"give every sample a picture, train on one process, or --set {other}",
        )


def data_hash(samples: Sequence[Located]) -> str:
    """Hash of all samples, in order, and of the bytes of their pictures."""
    pictures: dict[str, str] = {}
    digest = ""
    for one in samples:
        for image in one.sample.images:
            if image not in pictures:
                pictures[image] = hash_file(Path(image))
        bare = one.sample.model_copy(update={"image": [pictures[i] for i in one.sample.images]})
        digest = hash_bytes((digest + encode(bare)).encode())
    return digest
