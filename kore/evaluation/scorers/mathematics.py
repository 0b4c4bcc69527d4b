"""MathVista and MathVision: rules first; then a judge that copies out the final answer, or, without one,
a fixed extractor. No model text is ever run.

Two figures without a judge: `prefetch_only` (rules alone: a lower bound that any tool reproduces) and
`extracted` (extractor kore-v1, the headline).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kore.data.benchmark_tsv import Row, literal_list
from kore.errors import DataError
from kore.evaluation.judge import JudgeRequest
from kore.evaluation.math_eval import equal
from kore.evaluation.option_matching import infer
from kore.evaluation.scorers.scorer_context import ScorerContext
from kore.evaluation.types import Scored, Verdict

EXTRACTOR = "kore-v1"
_BOXED = re.compile(r"\\boxed\s*\{")
_ANSWER = re.compile(r"(?:answer|result)\s*(?:is|:|=)\s*:?\s*([^\n]+)", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?|[-+]?\.\d+")
_INTEGER = re.compile(r"[-+]?\d[\d,]*(?![\d.,]*\d)")
_BRACKETED = re.compile(r"\(([A-Z])\)")


@dataclass(frozen=True)
class Reading:
    """How one benchmark reads a row: the finished answer by rule if there is one, and the final check."""

    rule: Callable[[Row, str, ScorerContext], str | None]
    check: Callable[[Row, str, ScorerContext], tuple[bool, str]]
    groups: Callable[[Row], Sequence[str]]
    wanted: Callable[[Row], str]


def options_of(row: Row) -> dict[str, str]:
    """Letter -> text of the cell ``choices``."""
    cell = row.get("choices").strip()
    texts = literal_list(cell, row.where) if cell.startswith("[") else []
    return {chr(65 + i): text for i, text in enumerate(texts)}


def _vista_rule(row: Row, said: str, context: ScorerContext) -> str | None:
    if row.get("question_type") == "multi_choice":
        return infer(said, options_of(row), context.compat)
    # 0 is right too, but the original asks its judge about it: Python's zero is false
    right, value = _vista_number(row, said)
    return said if right and value != 0 else None


def _vista_number(row: Row, said: str) -> tuple[bool, float | None]:
    """Equality as Python's int() or float() reads the whole text; text and lists are never equal."""
    read: Callable[[str], float] | None = {"integer": int, "float": float}.get(row.get("answer_type"))
    if read is None:
        return False, None
    try:
        value = read(said)
        return value == read(row.get("answer")), value
    except ValueError:
        return False, None


def _vista_check(row: Row, said: str, context: ScorerContext) -> tuple[bool, str]:
    if row.get("question_type") == "multi_choice":
        letter = infer(said, options_of(row), context.compat)
        return letter == row.get("answer_option"), f"option {letter}" if letter else "no option can be told"
    right, value = _vista_number(row, said)
    return right, "equal" if right else "not a number" if value is None else f"{value} is not the key"


def _skills(row: Row) -> list[str]:
    cell = row.get("skills")
    try:
        skills = literal_list(cell.strip())
    except DataError:
        skills = [cell]
    return [row.get("task"), *skills]


def _vision_rule(row: Row, said: str, context: ScorerContext) -> str | None:
    options = options_of(row)
    if options:
        return infer(said, options, context.compat)
    return said if said and equal(said, row.get("answer"))[0] else None


def _vision_check(row: Row, said: str, context: ScorerContext) -> tuple[bool, str]:
    options = options_of(row)
    if not options:
        return equal(said, row.get("answer"))
    letter = infer(said, options, context.compat)
    if letter is None:
        return False, "no option can be told"
    return letter.lower() == row.get("answer").lower().strip(), f"option {letter}"


VISTA = Reading(
    _vista_rule,
    _vista_check,
    _skills,
    lambda row: "letter" if row.get("question_type") == "multi_choice" else row.get("answer_type"),
)
VISION = Reading(
    _vision_rule,
    _vision_check,
    lambda row: [row.get("category")],
    lambda row: "letter" if options_of(row) else "free",
)


def _reading(context: ScorerContext) -> Reading:
    return VISTA if context.name.startswith("MathVista") else VISION


def requests(context: ScorerContext) -> list[JudgeRequest]:
    """Ask a judge to copy out the final answer wherever rules do not find it."""
    reading = _reading(context)
    found = []
    for row in context.rows:
        said = context.prediction(row)
        if said is not None and reading.rule(row, said, context) is None:
            text = context.prompts.fill("extract", question=row.get("question"), prediction=said)
            found.append(JudgeRequest(row.index, text, lambda reply: True))
    return found


def score(context: ScorerContext) -> Scored:
    """Overall and per task and skill (MathVista) or category (MathVision): rows, finished by rule, hits,
    accuracy in percent."""
    reading = _reading(context)
    verdicts: list[Verdict] = []
    lower: list[bool] = []
    tallies: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for row in context.rows:
        verdict, by_rule = _verdict(context, row, reading)
        verdicts.append(verdict)
        lower.append(by_rule and verdict.score == 1.0)
        for name in ("Overall", *reading.groups(row)):
            tally = tallies[name]
            tally[0] += 1
            tally[1] += by_rule
            tally[2] += verdict.score == 1.0
    metrics: dict[str, float] = {}
    for name, (total, fetched, hit) in tallies.items():
        metrics |= {
            f"{name}.tot": total,
            f"{name}.prefetch": fetched,
            f"{name}.hit": hit,
            f"{name}.prefetch_rate": 100 * fetched / total,
            f"{name}.acc": 100 * hit / total,
        }
    metrics["prefetch_only"] = 100 * sum(lower) / len(lower) if lower else 0.0
    headline = metrics["Overall.acc"] if context.rows else None
    unmatched = sum(v.parts.get("by") == "nothing" for v in verdicts)
    if context.judged:
        return context.scored(headline, "accuracy, judged", metrics, verdicts, unmatched=unmatched)
    metrics["extracted"] = metrics["Overall.acc"]
    note = f"no judge: final answers read by extractor {EXTRACTOR}; rules alone give prefetch_only"
    return context.scored(headline, "accuracy, extracted", metrics, verdicts, note, unmatched=unmatched)


def _verdict(context: ScorerContext, row: Row, reading: Reading) -> tuple[Verdict, bool]:
    said = context.prediction(row)
    key = (
        row.get("answer_option") or row.get("answer")
        if reading.wanted(row) == "letter"
        else row.get("answer")
    )
    if said is None:
        return context.verdict(row, key, 0.0, "no prediction"), False
    finished = reading.rule(row, said, context)
    if finished is not None:
        right, why = reading.check(row, finished, context)
        return context.verdict(row, key, float(right), f"{why} (rule)", by="rule", read=finished), True
    if context.judged:
        found, by = context.replies.last.get(row.index), "judge"
    else:
        found, by = extract(said, reading.wanted(row)), "extractor"
    if not found:
        return context.verdict(row, key, 0.0, "no final answer can be told", by="nothing"), False
    right, why = reading.check(row, found, context)
    return context.verdict(row, key, float(right), f"{why} ({by})", by=by, read=found), False


def extract(said: str, wanted: str) -> str | None:
    """The final answer of a longer text, without a judge (extractor kore-v1).

    Looks at the last ``\\boxed{}``, then at what follows the last "answer is", then at the whole text;
    takes the last letter in brackets, the last number of the wanted type, or the piece itself.

    Args:
        wanted: letter, integer, float, free, or another answer type.
    """
    pieces = [piece for piece in (_boxed(said), _after(said)) if piece]
    for piece in [*pieces, said]:
        if wanted == "letter":
            letters = _BRACKETED.findall(piece) or re.findall(
                r"\b([A-Z])\b", piece if piece is not said else ""
            )
            if letters:
                return str(letters[-1])
        elif wanted in ("integer", "float", "free"):
            if wanted == "free" and piece is not said:
                return piece
            numbers = (_INTEGER if wanted == "integer" else _NUMBER).findall(piece)
            if numbers:
                return str(numbers[-1]).replace(",", "")
        elif piece is not said:
            return piece
    return None


def _boxed(text: str) -> str | None:
    starts = [m.end() for m in _BOXED.finditer(text)]
    if not starts:
        return None
    depth = 1
    for place in range(starts[-1], len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[starts[-1] : place].strip()
    return None


def _after(text: str) -> str | None:
    found = _ANSWER.findall(text)
    return found[-1].strip().rstrip(".").strip("*$ ") if found else None
