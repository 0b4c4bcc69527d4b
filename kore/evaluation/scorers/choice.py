"""Multiple choice: plain (SEEDBench2 Plus, ScienceQA), circular (MMBench), MMMU with its open questions.

Reports fractions of 1, as the original does; the headline is in percent.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from kore.data.benchmark_tsv import Row, by_index, is_integer
from kore.errors import DataError
from kore.evaluation.judge import JudgeRequest
from kore.evaluation.option_matching import Compat, infer
from kore.evaluation.scorers.scorer_context import ScorerContext, grouped, mean
from kore.evaluation.types import Scored, Verdict

_TRIES = 3
_ROLL = 1_000_000  # a rolled copy's index is its group's plus a multiple of this
_NATIVE_IS = re.compile(r"The answer is ([A-Z])\.")


def requests(context: ScorerContext) -> list[JudgeRequest]:
    """Ask a judge about every answer whose letter cannot be told."""
    found = []
    for row in _prepared(context):
        said = context.prediction(row)
        if said is None or _letter(context, row, said):
            continue
        options = row.options
        listed = "\n".join(f"{letter}. {text}" for letter, text in options.items())
        text = context.prompts.fill("option", question=row.get("question"), options=listed, prediction=said)
        found.append(
            JudgeRequest(row.index, text, partial(_is_letter, options, context.compat), tries=_TRIES)
        )
    return found


def _is_letter(options: Mapping[str, str], compat: Compat, reply: str) -> bool:
    return infer(reply, options, compat) is not None


def circular_requests(context: ScorerContext) -> list[JudgeRequest]:
    """As `requests`, but not about questions of which a copy is wrong already."""
    failed = set()
    for row in context.rows:
        said = context.prediction(row)
        letter = None if said is None else _letter(context, row, said)
        if said is None or (letter and letter != row.get("answer")):
            failed.add(_group(row))
    return requests(replace(context, rows=[row for row in context.rows if _group(row) not in failed]))


def score(context: ScorerContext) -> Scored:
    """Plain multiple choice: the inferred letter is the key; what cannot be inferred is wrong."""
    rows = _prepared(context)
    verdicts = [_verdict(context, row) for row in rows]
    return _report(context, rows, verdicts)


def mmmu(context: ScorerContext) -> Scored:
    """MMMU: open questions become two options, the key and all other answers; headline: validation."""
    return score(replace(context, rows=[_opened(row) for row in context.rows]))


def mmmu_requests(context: ScorerContext) -> list[JudgeRequest]:
    """As `requests`, with open questions as `mmmu` reads them."""
    return requests(replace(context, rows=[_opened(row) for row in context.rows]))


def circular(context: ScorerContext) -> Scored:
    """MMBench: a question counts only if every rolled copy of it is answered right."""
    rows = _prepared(context)
    groups: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        if not is_integer(row.index) or not is_integer(row.get("g_index", "0")):
            raise DataError(f"index {row.index} is not a number", where=row.where or None)
        groups[_group(row)].append(row)
    verdicts: list[Verdict] = []
    mains: list[Row] = []
    results: list[Verdict] = []
    for row in rows:
        group = _group(row)
        if int(row.index) != group:
            continue
        copies = [_verdict(context, copy) for copy in groups[group]]
        wrong = next((v for v in copies if v.score != 1.0), None)
        why = "all copies right" if wrong is None else f"copy {wrong.id}: {wrong.why}"
        missing = any(v.prediction is None for v in copies)
        result = context.verdict(
            row, row.get("answer"), float(wrong is None and not missing), why, copies=len(copies)
        )
        mains.append(row)
        results.append(replace(result, group=str(group)))
        verdicts += [replace(v, group=str(group)) for v in copies]
    told = _report(context, mains, results)
    counts = {**told.counts, "rows": len(verdicts), "unmatched": sum(_unmatched(v) for v in verdicts)}
    counts["missing"] = sum(v.prediction is None for v in verdicts)
    metrics = {**told.metrics, "single_pass": mean(v.score for v in verdicts)}
    notes = told.notes
    if context.protocol == "llava-native":
        notes += ("scored here by option inference; the authors' figure came from the benchmark's server",)
    return replace(told, counts=counts, metrics=metrics, samples=results, notes=notes)


def _prepared(context: ScorerContext) -> list[Row]:
    return by_index(list(context.rows))


def _group(row: Row) -> int:
    return int(row.get("g_index") or int(row.index) % _ROLL)


def _opened(row: Row) -> Row:
    """An open question as the original scores it."""
    answer = row.get("answer")
    cells = dict(row.cells)
    if "A" not in cells:
        cells["A"], cells["B"] = answer, "Other Answers"
    if not (len(answer) == 1 and answer.isascii() and answer.isupper()):
        cells["answer"] = "A"
        cells["open_answer"] = answer
    return replace(row, cells=cells)


def _letter(context: ScorerContext, row: Row, said: str) -> str | None:
    if context.protocol == "llava-native" and context.name.startswith("ScienceQA"):
        return native_letter(said, row)
    return infer(said, row.options, context.compat)


def native_letter(said: str, row: Row) -> str | None:
    """LLaVA's own rule: the bare letter, ``X. `` at the start, or one ``The answer is X.``"""
    if said in row.options:
        return said
    if len(said) >= 3 and said[0] in row.options and said[1:3] == ". ":
        return said[0]
    found = _NATIVE_IS.findall(said)
    return found[0] if len(found) == 1 else None


def _verdict(context: ScorerContext, row: Row) -> Verdict:
    said, key = context.prediction(row), row.get("answer")
    if said is None:
        return context.verdict(row, key, 0.0, "no prediction")
    letter, by = _letter(context, row, said), "rule"
    if letter is None and row.index in context.replies.readable:
        letter, by = infer(context.replies.readable[row.index], row.options, context.compat), "judge"
    why = f"{letter} by {by}" if letter else "no option can be told from it"
    return context.verdict(row, row.get("open_answer", key), float(letter == key), why, letter=letter, by=by)


def _unmatched(verdict: Verdict) -> bool:
    return verdict.prediction is not None and verdict.parts.get("letter") is None


def _report(context: ScorerContext, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> Scored:
    splits: list[str | None] = [*sorted({r.cells["split"] for r in rows if "split" in r.cells})] or [None]
    metrics: dict[str, float] = {}
    for split in splits:
        kept = [
            (r, v) for r, v in zip(rows, verdicts, strict=True) if split is None or r.get("split") == split
        ]
        own, values = [r for r, _ in kept], [v.score or 0.0 for _, v in kept]
        mark = "" if split is None else f"{split}."
        metrics[f"{mark}Overall"] = mean(values)
        for column in ("l2-category", "category"):
            metrics |= {f"{mark}{column}.{k}": mean(v) for k, v in grouped(own, values, column).items()}
    chosen = _headline_split([s for s in splits if s is not None])
    if chosen:
        headline, name = metrics[f"{chosen}.Overall"], f"accuracy ({chosen})"
    else:
        headline, name = mean(v.score for v in verdicts), "accuracy"
    return context.scored(100 * headline, name, metrics, verdicts, unmatched=sum(map(_unmatched, verdicts)))


def _headline_split(splits: Sequence[str]) -> str | None:
    """Validation where there is one (MMMU), else the only split, else all rows together."""
    for name in ("validation", "val"):
        if name in splits:
            return name
    return splits[0] if len(splits) == 1 else None
