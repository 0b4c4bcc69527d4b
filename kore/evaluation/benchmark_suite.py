"""A benchmark as a suite: rows of a TSV, prompts by its protocol, its scorer, a judge where one is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.errors import DataError, UsageError
from kore.evaluation.benchmarks import Benchmark, file_of, find
from kore.evaluation.judge import Judge, Replies
from kore.evaluation.judge_prompts import JudgePrompts
from kore.evaluation.option_matching import Compat
from kore.evaluation.prompt_formats import Style, task_of
from kore.evaluation.rows import Row, is_integer, read_rows
from kore.evaluation.scorers import choice, judged, mathematics, short, yesno
from kore.evaluation.scorers.scorer_context import Requests, Score, Sheet
from kore.evaluation.types import Answers, Role, Scored, Task
from kore.io.files import hash_file

if TYPE_CHECKING:
    from kore.evaluation.suite_options import SuiteOptions

LONGEST = 2048  # new tokens: the original's setting for the models of the paper
NATIVE_LONGEST = 128
NATIVE = ("mme", "pope", "circular", "ScienceQA_TEST", "ScienceQA_VAL")
OWN = ("mcq", "yorn", "vqa")
_SCORERS: dict[str, Score] = {
    "mcq": choice.score, "circular": choice.circular, "mmmu": choice.mmmu, "mme": yesno.mme,
    "pope": yesno.pope, "hallusion": yesno.hallusion, "yorn": yesno.plain, "ocrvqa": short.ocrvqa,
    "vqa": short.ocrvqa, "mathvista": mathematics.score, "mathvision": mathematics.score,
    "mia": judged.mia, "mmdu": judged.mmdu,
}  # fmt: skip
_REQUESTS: dict[str, Requests] = {
    "mcq": choice.requests, "circular": choice.circular_requests, "mmmu": choice.mmmu_requests,
    "mme": yesno.requests, "pope": yesno.requests, "hallusion": yesno.requests, "yorn": yesno.requests,
    "mathvista": mathematics.requests, "mathvision": mathematics.requests,
    "mia": judged.mia_requests, "mmdu": judged.mmdu_requests,
}  # fmt: skip


@dataclass(frozen=True)
class BenchSuite:
    """One benchmark file, ready to be asked and scored.

    Attributes:
        kind: which scorer and prompt form.
        rows: those with a picture, in file order.
        warnings: what a user should know before answering (a file other than the published one).
    """

    name: str
    kind: str
    rows: Sequence[Row]
    path: str
    data: str
    dimension: str | None = None
    protocol: str = "vlmeval"
    compat: Compat = "vlmeval-688e9da"
    style: Style = "default"
    judge: Judge | None = None
    longest: int = LONGEST
    warnings: tuple[str, ...] = ()
    role: Role = field(default="retention", init=False)

    @property
    def facts(self) -> Mapping[str, Any]:
        """What decides its result beside the model."""
        judge = self.judge.facts if self.judge and self.kind in _REQUESTS else None
        return {
            "file": self.path, "data": self.data, "rows": len(self.rows), "metric": self.kind,
            "protocol": self.protocol, "compat": self.compat, "style": self.style, "judge": judge,
            "max_new_tokens": self.longest, "warnings": list(self.warnings),
        }  # fmt: skip

    def __len__(self) -> int:
        return len(self.rows)

    def tasks(self) -> Iterator[Task]:
        """The prompts, in file order."""
        return (task_of(row, self.kind, style=self.style, protocol=self.protocol) for row in self.rows)

    def score(self, answers: Answers) -> Scored:
        """Score; a judge, if there is one, is asked about what rules cannot tell."""
        sheet = Sheet(
            self.name, self.rows, answers, self.dimension, self.protocol, self.compat,
            prompts=self.judge.prompts if self.judge else JudgePrompts(),
        )  # fmt: skip
        if self.judge is not None and self.judge.there and self.kind in _REQUESTS:
            requests = _REQUESTS[self.kind](sheet)
            replies = self.judge.ask(requests) if requests else Replies()
            sheet = replace(sheet, judged=True, replies=replies)
        return _SCORERS[self.kind](sheet)


def load_benchmark(name: str, choice: SuiteOptions) -> BenchSuite:
    """Read one of the twelve from the data folder.

    Raises:
        MissingArtefact: its file is not there; DataError: a defect in it, with file and line.
        UsageError: a benchmark that the protocol does not have.
    """
    benchmark = find(name)
    native = choice.protocol == "llava-native"
    if native and not {benchmark.kind, benchmark.name} & set(NATIVE):
        raise UsageError(
            f"protocol llava-native has no {benchmark.name}", hint="it knows MME, POPE, ScienceQA, MMBench"
        )
    path = file_of(benchmark, choice.data)
    rows = read_rows(path, {"question", *benchmark.columns})
    _check(rows, benchmark.kind)
    return BenchSuite(
        benchmark.name, benchmark.kind, rows, str(path), hash_file(path), benchmark.dimension,
        choice.protocol, choice.compat, choice.style, choice.judge,
        choice.max_new_tokens or (NATIVE_LONGEST if native else LONGEST),
        _md5_warning(path, benchmark),
    )  # fmt: skip


def load_own(path: Path, kind: str, choice: SuiteOptions) -> BenchSuite:
    """Read anyone's own TSV: ``mcq`` (options A, B, ...), ``yorn`` (Yes or No), ``vqa`` (short answers)."""
    if kind not in OWN:
        raise UsageError(f"{path}: say what it is", hint=f"{path}:mcq, {path}:yorn or {path}:vqa")
    columns = {"question", "answer", *(("A", "B") if kind == "mcq" else ())}
    rows = read_rows(path, columns, pandas_empty=False)
    _check(rows, kind)
    _check_keys(rows, kind)
    longest = choice.max_new_tokens or NATIVE_LONGEST
    return BenchSuite(
        path.stem, kind, rows, str(path), hash_file(path), None, choice.protocol, choice.compat, choice.style,
        choice.judge, longest,
    )  # fmt: skip


def narrow(suite: BenchSuite, choice: SuiteOptions) -> BenchSuite:
    """Only the chosen rows; with ``--ids``, a circular question brings all its rolled copies."""
    rows = suite.rows
    if choice.ids:
        if suite.kind == "circular":
            wanted = {_group(r) for r in rows if r.index in choice.ids}
            rows = [r for r in rows if _group(r) in wanted]
        else:
            rows = [r for r in rows if r.index in choice.ids]
    if choice.limit is not None and suite.kind == "circular":
        groups = list(dict.fromkeys(map(_group, rows)))[: choice.limit]
        rows = [r for r in rows if _group(r) in set(groups)]
    elif choice.limit is not None:
        rows = rows[: choice.limit]
    return replace(suite, rows=rows)


def _group(row: Row) -> str:
    if row.get("g_index"):
        return row.get("g_index")
    return str(int(row.index) % 1_000_000) if is_integer(row.index) else row.index


def _check(rows: Sequence[Row], kind: str) -> None:
    """What would make scoring fail after hours of answering is refused before."""
    for row in rows:
        where = row.where or None
        if not row.get("question"):
            raise DataError("question is empty", where=where)
        if kind == "circular" and not (is_integer(row.index) and is_integer(row.get("g_index", "0"))):
            raise DataError(f"index {row.index} is not a number", where=where)
        if kind == "hallusion" and len(row.index.split("_")) < 6:
            raise DataError(f"index {row.index}: expected six parts joined by _", where=where)
        if kind in ("mathvista", "mathvision"):
            mathematics.options_of(row)
        task_of(row, kind)


def _check_keys(rows: Sequence[Row], kind: str) -> None:
    for row in rows:
        key, options = row.get("answer"), "".join(row.options)
        if kind == "mcq" and key not in row.options:
            raise DataError(f"answer {key!r} is none of the options {options}", where=row.where or None)
        if kind == "yorn" and key.lower() not in ("yes", "no"):
            raise DataError(f"answer {key!r} is neither Yes nor No", where=row.where or None)


def _md5_warning(path: Path, benchmark: Benchmark) -> tuple[str, ...]:
    found = md5_of(path)
    if found == benchmark.md5:
        return ()
    return (f"{path} is not the published file (MD5 {found}, published {benchmark.md5}): scored as it is",)


def md5_of(path: Path) -> str:
    """MD5 of a file: an identity of the published data, not a protection."""
    import hashlib

    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
