"""The twelve retention benchmarks of the paper (5.1.2): names, files, splits, what is reported.

Facts of VLMEvalKit's data files; row counts are not stated, since they are only known once a file is
there.
"""

from __future__ import annotations

from dataclasses import dataclass

Kind = str


@dataclass(frozen=True)
class Benchmark:
    """One data file of one benchmark.

    Attributes:
        name: as VLMEvalKit names the data set; also the file's stem.
        title: the benchmark it belongs to.
        dimension: the paper's capability dimension.
        kind: which scorer: mcq, circular, mmmu, mme, pope, hallusion, ocrvqa, vqa, mathvista,
            mathvision, mia, mmdu.
        md5: of the published file.
        address: its path below the download server of the benchmark's keepers.
        aliases: other file names it is known under.
        columns: columns beyond ``index`` and ``question`` that it must have.
        main: the default data set of its benchmark.
    """

    name: str
    title: str
    dimension: str
    kind: Kind
    md5: str
    address: str
    columns: tuple[str, ...] = ("answer",)
    aliases: tuple[str, ...] = ()
    main: bool = True


SERVER = "https://opencompass.openxlab.space/utils/"
_MCQ = ("answer", "A", "B")

ALL = (
    Benchmark("MME", "MME", "COM", "mme", "b36b43c3f09801f5d368627fb92187c3", "VLMEval/MME.tsv", ("answer", "category", "image_path")),
    Benchmark("MMBench_DEV_EN", "MMBench", "COM", "circular", "b6caf1133a01c6bb705cf753bb527ed8", "benchmarks/MMBench/MMBench_DEV_EN.tsv", _MCQ),
    Benchmark("MMBench_DEV_EN_V11", "MMBench", "COM", "circular", "30c05be8f2f347a50be25aa067248184", "benchmarks/MMBench/MMBench_DEV_EN_V11.tsv", _MCQ, main=False),
    Benchmark("SEEDBench2_Plus", "SEEDBench2 Plus", "OCR", "mcq", "e32d3216dc4f452b0fe497a52015d1fd", "benchmarks/SEEDBench/SEEDBench2_Plus.tsv", _MCQ),
    Benchmark("OCRVQA_TESTCORE", "OCRVQA", "OCR", "ocrvqa", "c5239fe77db8bdc1f2ad8e55e0d1fe97", "VLMEval/OCRVQA_TESTCORE.tsv"),
    Benchmark("ScienceQA_TEST", "ScienceQA", "M-DIS", "mcq", "e42e9e00f9c59a80d8a5db35bc32b71f", "benchmarks/ScienceQA/ScienceQA_TEST.tsv", _MCQ),
    Benchmark("ScienceQA_VAL", "ScienceQA", "M-DIS", "mcq", "96320d05e142e585e7204e72affd29f3", "benchmarks/ScienceQA/ScienceQA_VAL.tsv", _MCQ, main=False),
    Benchmark("MMMU_DEV_VAL", "MMMU", "M-DIS", "mmmu", "585e8ad75e73f75dcad265dfd0417d64", "VLMEval/MMMU_DEV_VAL.tsv", ("answer", "A", "B", "split")),
    Benchmark("MIA-Bench", "MIA-Bench", "INS", "mia", "0b9de595f4dd40af18a69b94d89aba82", "VLMEval/Mia-Bench.tsv", ("components", "component_weight", "component_type", "num_of_component"), ("Mia-Bench",)),
    Benchmark("MMDU", "MMDU", "M-IDU", "mmdu", "848b635a88a078f49aebcc6e39792061", "VLMEval/MMDU.tsv"),
    Benchmark("MathVista_MINI", "MathVista", "MAT", "mathvista", "f199b98e178e5a2a20e7048f5dcb0464", "VLMEval/MathVista_MINI.tsv", ("answer", "task", "skills", "question_type", "answer_type", "choices", "answer_option")),
    Benchmark("MathVision_MINI", "MathVision", "MAT", "mathvision", "060fe4fa5d868987ce179307bd5f8a33", "VLMEval/MathVision_MINI.tsv", ("answer", "choices", "category")),
    Benchmark("MathVision", "MathVision", "MAT", "mathvision", "93f6de14f7916e598aa1b7165589831e", "VLMEval/MathVision.tsv", ("answer", "choices", "category"), main=False),
    Benchmark("POPE", "POPE", "HAL", "pope", "c12f5acb142f2ef1f85a26ba2fbe41d5", "VLMEval/POPE.tsv", ("answer", "category")),
    Benchmark("HallusionBench", "HallusionBench", "HAL", "hallusion", "0c23ac0dc9ef46832d7a24504f2a0c7c", "VLMEval/HallusionBench.tsv", ("answer", "category", "l2-category")),
)  # fmt: skip

NAMES = tuple(b.name for b in ALL if b.main)
"""The default data set of each of the twelve."""


def known(name: str) -> bool:
    """Whether `name` is one of the data sets, or the title of a benchmark."""
    return any(name in (b.name, b.title, *b.aliases) for b in ALL)


def load(name, choice):
    raise NotImplementedError


load_own = narrow = load
