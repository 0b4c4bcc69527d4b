"""A benchmark as a suite: the rows of a TSV file, their prompts, a scorer, and optionally a judge."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.data.benchmark_prompts import DEFAULT_FORM, PromptForm, task_of
from kore.data.benchmark_tsv import Row, is_integer, read_rows
from kore.data.benchmarks import OWN_KINDS, Benchmark, file_of, find
from kore.data.task import Task
from kore.errors import DataError, UsageError
from kore.evaluation.judge import Judge, Replies
from kore.evaluation.judge_prompts import JudgePrompts
from kore.evaluation.option_matching import Compat
from kore.evaluation.scorers import choice, judged, mathematics, short, yesno
from kore.evaluation.scorers.scorer_context import Requests, Score, ScorerContext
from kore.evaluation.types import Answers, Role, Scored
from kore.io.files import hash_file

if TYPE_CHECKING:
    from kore.evaluation.suite_options import SuiteOptions

LONGEST = 2048  # new tokens: the original's setting for the models of the paper
NATIVE_LONGEST = 128
NATIVE = ("mme", "pope", "circular", "ScienceQA_TEST", "ScienceQA_VAL")
_SCORERS: dict[str, Score] = {
    "mcq": choice.score,
    "circular": choice.circular,
    "mmmu": choice.mmmu,
    "mme": yesno.mme,
    "pope": yesno.pope,
    "hallusion": yesno.hallusion,
    "yorn": yesno.plain,
    "ocrvqa": short.ocrvqa,
    "vqa": short.ocrvqa,
    "mathvista": mathematics.score,
    "mathvision": mathematics.score,
    "mia": judged.mia,
    "mmdu": judged.mmdu,
}
_REQUESTS: dict[str, Requests] = {
    "mcq": choice.requests,
    "circular": choice.circular_requests,
    "mmmu": choice.mmmu_requests,
    "mme": yesno.requests,
    "pope": yesno.requests,
    "hallusion": yesno.requests,
    "yorn": yesno.requests,
    "mathvista": mathematics.requests,
    "mathvision": mathematics.requests,
    "mia": judged.mia_requests,
    "mmdu": judged.mmdu_requests,
}


@dataclass(frozen=True)
class BenchSuite:
    """One benchmark file, ready to evaluate.

    Attributes:
        kind: decides prompt and scorer.
        rows: those with an image, in file order.
        warnings: for the user, such as a file other than the published one.
    """

    name: str
    kind: str
    rows: Sequence[Row]
    path: str
    data: str
    dimension: str | None = None
    form: PromptForm = DEFAULT_FORM
    compat: Compat = "vlmeval-688e9da"
    judge: Judge | None = None
    longest: int = LONGEST
    warnings: tuple[str, ...] = ()
    role: Role = field(default="retention", init=False)

    @property
    def facts(self) -> Mapping[str, Any]:
        """What decides its result beside the model."""
        judge = self.judge.facts if self.judge and self.kind in _REQUESTS else None
        return {
            "file": self.path,
            "data": self.data,
            "rows": len(self.rows),
            "metric": self.kind,
            "protocol": self.form.protocol,
            "compat": self.compat,
            "style": self.form.style,
            "judge": judge,
            "max_new_tokens": self.longest,
            "warnings": list(self.warnings),
        }

    def __len__(self) -> int:
        return len(self.rows)

    def tasks(self) -> Iterator[Task]:
        """The prompts, in file order."""
        return (task_of(row, self.kind, self.form) for row in self.rows)

    def score(self, answers: Answers) -> Scored:
        """Score; answers that no rule can read go to the judge, if there is one."""
        context = ScorerContext(
            self.name,
            self.rows,
            answers,
            self.dimension,
            self.form.protocol,
            self.compat,
            prompts=self.judge.prompts if self.judge else JudgePrompts(),
        )
        if self.judge is not None and self.judge.there and self.kind in _REQUESTS:
            requests = _REQUESTS[self.kind](context)
            replies = self.judge.ask(requests) if requests else Replies()
            context = replace(context, judged=True, replies=replies)
        scored = _SCORERS[self.kind](context)
        if scored.judge_failed:
            note = f"not scored: the judge replied to none of {scored.counts['judge_asked']} requests"
            return replace(scored, headline=None, headline_name="not scored", metrics={}, notes=(note,))
        return scored.noted(coverage) if (coverage := scored.judge_coverage) else scored


def load_benchmark(name: str, choice: SuiteOptions) -> BenchSuite:
    """Read one of the twelve benchmarks from the data folder.

    Raises:
        MissingArtefact: no file; DataError: a defect in it, with file and line.
        UsageError: the protocol does not cover this benchmark.
    """
    benchmark = find(name)
    native = choice.form.protocol == "llava-native"
    if native and not {benchmark.kind, benchmark.name} & set(NATIVE):
        raise UsageError(
            f"protocol llava-native has no {benchmark.name}",
            hint="it has MME, POPE, ScienceQA and MMBench",
        )
    path = file_of(benchmark, choice.data)
    rows = read_rows(path, {"question", *benchmark.columns})
    _check(rows, benchmark.kind)
    return BenchSuite(
        benchmark.name,
        benchmark.kind,
        rows,
        str(path),
        hash_file(path),
        benchmark.dimension,
        choice.form,
        choice.compat,
        choice.judge,
        choice.max_new_tokens or (NATIVE_LONGEST if native else LONGEST),
        _md5_warning(path, benchmark),
    )


def load_own(path: Path, kind: str, choice: SuiteOptions) -> BenchSuite:
    """Read a user's own TSV file of kind ``mcq`` (options A, B, ...), ``yorn`` (Yes or No) or ``vqa``."""
    if kind not in OWN_KINDS:
        raise UsageError(f"{path}: name its kind", hint=f"{path}:mcq, {path}:yorn or {path}:vqa")
    columns = {"question", "answer", *(("A", "B") if kind == "mcq" else ())}
    rows = read_rows(path, columns, pandas_empty=False)
    _check(rows, kind)
    _check_keys(rows, kind)
    return BenchSuite(
        path.stem,
        kind,
        rows,
        str(path),
        hash_file(path),
        form=choice.form,
        compat=choice.compat,
        judge=choice.judge,
        longest=choice.max_new_tokens or NATIVE_LONGEST,
    )


def narrow(suite: BenchSuite, choice: SuiteOptions) -> BenchSuite:
    """The chosen rows only; with ``--ids``, a circular question includes all its rotated copies."""
    rows = suite.rows
    if choice.ids:
        if suite.kind == "circular":
            groups = {_group(r) for r in rows if r.index in choice.ids}
            rows = [r for r in rows if _group(r) in groups]
        else:
            rows = [r for r in rows if r.index in choice.ids]
    if choice.limit is not None and suite.kind == "circular":
        groups = set(list(dict.fromkeys(map(_group, rows)))[: choice.limit])
        rows = [r for r in rows if _group(r) in groups]
    elif choice.limit is not None:
        rows = rows[: choice.limit]
    return replace(suite, rows=rows)


def _group(row: Row) -> str:
    if row.get("g_index"):
        return row.get("g_index")
    return str(int(row.index) % 1_000_000) if is_integer(row.index) else row.index


def _check(rows: Sequence[Row], kind: str) -> None:
    """Refuse before answering what would make scoring fail after hours."""
    for row in rows:
        where = row.where or None
        if not row.get("question"):
            raise DataError("question is empty", where=where)
        if kind == "circular" and not (is_integer(row.index) and is_integer(row.get("g_index", "0"))):
            raise DataError(f"index {row.index} is not a number", where=where)
        if kind == "hallusion" and len(row.index.split("_")) < 6:
            raise DataError(f"index {row.index}: expected six parts joined by _", where=where)
        if kind not in ("mia", "mmdu") and not all(map(str.strip, row.accepted_answers)):
            raise DataError("answer is empty", where=where)
        if kind in ("mathvista", "mathvision"):
            mathematics.options_of(row)
        task_of(row, kind)


def _check_keys(rows: Sequence[Row], kind: str) -> None:
    for row in rows:
        key, options = row.get("answer"), "".join(row.options)
        if kind == "mcq" and key not in row.options:
            raise DataError(f"answer {key!r} is not one of the options {options}", where=row.where or None)
        if kind == "yorn" and key.lower() not in ("yes", "no"):
            raise DataError(f"answer {key!r} is neither Yes nor No", where=row.where or None)


def _md5_warning(path: Path, benchmark: Benchmark) -> tuple[str, ...]:
    md5 = md5_of(path)
    if md5 == benchmark.md5:
        return ()
    return (f"{path} is not the published file (MD5 {md5}, published {benchmark.md5}): scored as it is",)


def md5_of(path: Path) -> str:
    """MD5 of a file, which identifies the published data."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
