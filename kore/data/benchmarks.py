"""The twelve retention benchmarks of the paper (5.1.2): names, files and kinds, as VLMEvalKit has them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kore.data.benchmark_tsv import Row
from kore.errors import MissingArtefact

OWN_KINDS = ("mcq", "yorn", "vqa")
"""Kinds of a user's own file."""


@dataclass(frozen=True)
class Benchmark:
    """One data file of one benchmark.

    Attributes:
        name: as VLMEvalKit names the data set; also the file's stem.
        title: the benchmark it belongs to.
        dimension: the paper's capability dimension.
        kind: decides prompt and scorer: mcq, circular, mmmu, mme, pope, hallusion, ocrvqa, vqa, mathvista,
            mathvision, mia, mmdu.
        md5: of the published file.
        address: its path on the download server.
        columns: required columns besides ``index`` and ``question``.
        main: the default data set of its benchmark.
    """

    name: str
    title: str
    dimension: str
    kind: str
    md5: str
    address: str
    columns: tuple[str, ...]
    main: bool


SERVER = "https://opencompass.openxlab.space/utils/"
_EXTRA = {
    "mme": ("answer", "category", "image_path"),
    "mcq": ("answer", "A", "B"),
    "circular": ("answer", "A", "B"),
    "mmmu": ("answer", "A", "B", "split"),
    "ocrvqa": ("answer",),
    "mia": ("components", "component_weight", "component_type", "num_of_component"),
    "mmdu": ("answer",),
    "mathvista": ("answer", "task", "skills", "question_type", "answer_type", "choices", "answer_option"),
    "mathvision": ("answer", "choices", "category"),
    "pope": ("answer", "category"),
    "hallusion": ("answer", "category", "l2-category"),
}
_TABLE = """
MME                MME             COM   mme        b36b43c3f09801f5d368627fb92187c3 VLMEval/MME.tsv
MMBench_DEV_EN     MMBench         COM   circular   b6caf1133a01c6bb705cf753bb527ed8 benchmarks/MMBench/MMBench_DEV_EN.tsv
MMBench_DEV_EN_V11 MMBench         COM   circular   30c05be8f2f347a50be25aa067248184 benchmarks/MMBench/MMBench_DEV_EN_V11.tsv
SEEDBench2_Plus    SEEDBench2_Plus OCR   mcq        e32d3216dc4f452b0fe497a52015d1fd benchmarks/SEEDBench/SEEDBench2_Plus.tsv
OCRVQA_TESTCORE    OCRVQA          OCR   ocrvqa     c5239fe77db8bdc1f2ad8e55e0d1fe97 VLMEval/OCRVQA_TESTCORE.tsv
ScienceQA_TEST     ScienceQA       M-DIS mcq        e42e9e00f9c59a80d8a5db35bc32b71f benchmarks/ScienceQA/ScienceQA_TEST.tsv
ScienceQA_VAL      ScienceQA       M-DIS mcq        96320d05e142e585e7204e72affd29f3 benchmarks/ScienceQA/ScienceQA_VAL.tsv
MMMU_DEV_VAL       MMMU            M-DIS mmmu       585e8ad75e73f75dcad265dfd0417d64 VLMEval/MMMU_DEV_VAL.tsv
MIA-Bench          MIA-Bench       INS   mia        0b9de595f4dd40af18a69b94d89aba82 VLMEval/Mia-Bench.tsv
MMDU               MMDU            M-IDU mmdu       848b635a88a078f49aebcc6e39792061 VLMEval/MMDU.tsv
MathVista_MINI     MathVista       MAT   mathvista  f199b98e178e5a2a20e7048f5dcb0464 VLMEval/MathVista_MINI.tsv
MathVision_MINI    MathVision      MAT   mathvision 060fe4fa5d868987ce179307bd5f8a33 VLMEval/MathVision_MINI.tsv
MathVision         MathVision_full MAT   mathvision 93f6de14f7916e598aa1b7165589831e VLMEval/MathVision.tsv
POPE               POPE            HAL   pope       c12f5acb142f2ef1f85a26ba2fbe41d5 VLMEval/POPE.tsv
HallusionBench     HallusionBench  HAL   hallusion  0c23ac0dc9ef46832d7a24504f2a0c7c VLMEval/HallusionBench.tsv
"""  # noqa: E501
_OTHERS = frozenset({"MMBench_DEV_EN_V11", "ScienceQA_VAL", "MathVision"})


def _entries() -> tuple[Benchmark, ...]:
    return tuple(
        Benchmark(name, title, dimension, kind, md5, address, _EXTRA[kind], name not in _OTHERS)
        for name, title, dimension, kind, md5, address in map(str.split, _TABLE.strip().splitlines())
    )


ALL = _entries()
NAMES = tuple(b.name for b in ALL if b.main)
"""The default data set of each of the twelve."""


def known(name: str) -> bool:
    """Whether `name` is one of the data sets, or the title of a benchmark."""
    return any(name in (b.name, b.title) for b in ALL)


def find(name: str) -> Benchmark:
    """The data set of that name, or the default one of the benchmark of that title."""
    exact = [b for b in ALL if b.name == name and (b.main or b.title != name)]
    return (exact or [b for b in ALL if b.title == name])[0]


def file_of(benchmark: Benchmark, data: Path) -> Path:
    """Its file in the data folder, under its own name or its published name.

    Raises:
        MissingArtefact: neither exists.
    """
    for name in _file_names(benchmark):
        if (data / name).is_file():
            return data / name
    raise _missing(f"{benchmark.name}.tsv", benchmark.name, data)


def locate(name: str, data: Path) -> tuple[Path, Benchmark | None]:
    """The file that ``bench:NAME`` means, and its benchmark if it is one of the twelve.

    Args:
        name: a data set, a benchmark's title, the stem of any file in `data` in any case, or the path of a
            TSV file.

    Raises:
        MissingArtefact: no such file.
    """
    if known(name) and not name.endswith(".tsv"):
        return file_of(find(name), data), find(name)
    path = Path(name) if name.endswith(".tsv") else data / f"{name}.tsv"
    if not path.is_file():
        folder = path.parent
        same = [p for p in folder.glob("*.tsv") if p.name.lower() == path.name.lower()]
        path = min(same or folder.glob(f"{path.stem}_*.tsv"), default=path)
    if not path.is_file():
        raise _missing(path.name, path.stem, path.parent)
    own = path.name.lower()
    return path, next((b for b in ALL if own in map(str.lower, _file_names(b))), None)


def _file_names(benchmark: Benchmark) -> tuple[str, str]:
    return f"{benchmark.name}.tsv", benchmark.address.rpartition("/")[2]


def _missing(file: str, name: str, data: Path) -> MissingArtefact:
    return MissingArtefact(
        f"no {file} in {data}", hint=f"fetch it with: kore data fetch {name} --data-dir {data}"
    )


def kind_of(rows: Iterable[Row]) -> str:
    """The kind of a user's own file, by its cells: options A and B, answers Yes and No, or short answers."""
    answers = set()
    for row in rows:
        if {"A", "B"} <= row.options.keys():
            return "mcq"
        answers.add(row.get("answer").strip().lower())
    return "yorn" if answers <= {"yes", "no"} else "vqa"
