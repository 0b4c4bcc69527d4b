"""MIA-Bench and MMDU: what only a judge can score. Without one they are not scored, and say so."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Sequence
from functools import partial

from kore.data.benchmark_tsv import Row, literal_list
from kore.errors import DataError
from kore.evaluation.judge import JudgeRequest
from kore.evaluation.scorers.scorer_context import ScorerContext, mean
from kore.evaluation.types import Outcome, Scored, Verdict, outcome_of

DIMENSIONS = (
    "Creativity",
    "Richness",
    "Visual Perception",
    "Logical Coherence",
    "Answer Accuracy",
    "Image Relationship Understanding",
    "Overall Score",
)
_NO_JUDGE = "not scored: needs a judge (--judge openai:MODEL, hf:PATH or replay:FILE)"


def _unscored(context: ScorerContext) -> Scored:
    verdicts = []
    for row in context.rows:
        said = context.prediction(row)
        outcome: Outcome = "missing" if said is None else "not scored"
        why = "no prediction" if said is None else "no judge"
        verdicts.append(Verdict(row.index, row.get("question"), row.get("answer"), said, None, outcome, why))
    return context.scored(None, "not scored", {}, verdicts, _NO_JUDGE)


def mia_requests(context: ScorerContext) -> list[JudgeRequest]:
    """One request per response, with the picture: points per part of the instruction."""
    found = []
    for row in context.rows:
        said = context.prediction(row)
        if said is None:
            continue
        parts, weights = (
            literal_list(row.get("components"), row.where),
            literal_list(row.get("component_weight"), row.where),
        )
        if len(parts) != len(weights):
            raise DataError(f"{len(parts)} components, {len(weights)} weights", where=row.where or None)
        listed = "\n".join(
            f"{i}. {p} ({w} points)" for i, (p, w) in enumerate(zip(parts, weights, strict=True), 1)
        )
        grammar = (
            ", ".join(f"score of component {i}: x/{w}" for i, w in enumerate(weights, 1))
            + ", total score: z/10"
        )
        text = context.prompts.fill(
            "instruction", question=row.get("question"), prediction=said, components=listed, grammar=grammar
        )
        readable = partial(_is_rated, component_types(row))
        found.append(JudgeRequest(row.index, text, readable, row.task_images(), tries=3))
    return found


def _is_rated(types: Sequence[str], reply: str) -> bool:
    return rating(reply, types) is not None


def component_types(row: Row) -> list[str]:
    """The kinds of the instruction's parts, as the original splits the cell."""
    return row.get("component_type")[2:-2].split("', '")


def rating(reply: str, types: Sequence[str]) -> dict[str, float] | None:
    """Points per component kind and ``total_score``, each a share of 1; None if it cannot be read.

    Read is the text before the first full stop: comma-separated ``...: a/b`` with whole numbers, the
    last one the total.
    """
    pieces = reply.split(".")[0].split(",")
    if len(pieces) < 2 or len(pieces) - 1 > len(types):
        return None
    try:
        shares = [_share(piece) for piece in pieces]
    except (ValueError, IndexError, ZeroDivisionError):
        return None
    return {**dict(zip(types, shares, strict=False)), "total_score": shares[-1]}


def _share(piece: str) -> float:
    over, under = piece.split(":")[1][1:].split("/")[:2]
    return int(over) / int(under)


def mia(context: ScorerContext) -> Scored:
    """Mean share of points per component kind and in total: over replies that could be read (as the
    original) and over all responses."""
    if not context.judged:
        return _unscored(context)
    verdicts = []
    found: dict[str, list[float]] = defaultdict(list)
    for row in context.rows:
        reply = context.replies.last.get(row.index)
        points = rating(reply, component_types(row)) if reply is not None else None
        if context.prediction(row) is None or points is None:
            why = "the judge gave no reply" if reply is None else "the judge's reply cannot be read"
            verdicts.append(context.verdict(row, "", None, why))
            continue
        for kind, share in points.items():
            found[kind].append(share)
        total = points["total_score"]
        verdict = context.verdict(row, "", total, f"judged {total:.2f}", **points)
        verdicts.append(verdict)
    if not found:
        return context.scored(
            None, "not scored", {}, verdicts, "not scored: no reply of the judge could be read"
        )
    metrics = {
        ("total_score" if k == "total_score" else f"type.{k}"): mean(v) for k, v in sorted(found.items())
    }
    metrics["total_score_over_all"] = sum(found["total_score"]) / len(context.rows)
    return context.scored(
        100 * metrics["total_score"],
        "total score, over parsed replies",
        metrics,
        verdicts,
        "comparable only under the same judge and prompts",
        parsed=len(found["total_score"]),
    )


def mmdu_requests(context: ScorerContext) -> list[JudgeRequest]:
    """One request per turn: the question, the reference answer, the model's answer."""
    found = []
    grammar = "{" + ", ".join(f"'{name}': 0" for name in DIMENSIONS) + "}"
    for row in context.rows:
        questions, answers = (
            literal_list(row.get("question"), row.where),
            literal_list(row.get("answer"), row.where),
        )
        said = context.predictions.get(row.index, ())
        for turn, (question, reference, reply) in enumerate(zip(questions, answers, said, strict=False)):
            text = context.prompts.fill(
                "dialogue", question=question, reference=reference, prediction=reply, grammar=grammar
            )
            found.append(
                JudgeRequest(
                    f"{row.index}#{turn}", text, lambda r: ratings(r) is not None, tries=3, max_tokens=512
                )
            )
    return found


def ratings(reply: str) -> dict[str, int] | None:
    """The mapping between the first ``{`` and the last ``}``, dimension -> 0 to 10; a dimension whose
    value is no number is left out. None if there is no mapping."""
    try:
        value = ast.literal_eval(reply[reply.find("{") : reply.rfind("}") + 1].strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    found = {}
    for name in DIMENSIONS:
        try:
            found[name] = min(10, max(0, int(value[name])))
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
    return found


def mmdu(context: ScorerContext) -> Scored:
    """Seven dimensions of 0 to 100, over all turns (unreadable ones count 0) and over readable ones; the
    headline is the overall score over all."""
    if not context.judged:
        return _unscored(context)
    sums: dict[str, int] = defaultdict(int)
    read: dict[str, int] = defaultdict(int)
    turns = unread = 0
    verdicts = []
    for row in context.rows:
        questions = literal_list(row.get("question"), row.where)
        overall: list[float] = []
        for turn in range(len(questions)):
            turns += 1
            reply = context.replies.last.get(f"{row.index}#{turn}")
            points = ratings(reply) if reply is not None else None
            unread += points is None
            for name, value in (points or {}).items():
                sums[name] += value
                read[name] += 1
            overall.append((points or {}).get("Overall Score", 0) / 10)
        said = context.predictions.get(row.index, ())
        score = mean(overall)
        why = f"overall {10 * score:.1f} of 10 over {len(overall)} turns"
        outcome: Outcome = "missing" if not said else outcome_of(score)
        verdicts.append(
            Verdict(
                row.index,
                row.get("question"),
                row.get("answer"),
                "\n---\n".join(said) or None,
                score,
                outcome,
                why,
                {"overall": [10 * value for value in overall]},
            )
        )
    if not read:
        return context.scored(
            None, "not scored", {}, verdicts, "not scored: no reply of the judge could be read"
        )
    metrics = {f"all.{name}": 10 * sums[name] / turns for name in DIMENSIONS}
    metrics |= {f"valid.{name}": 10 * sums[name] / read[name] for name in DIMENSIONS if read[name]}
    return context.scored(
        metrics["all.Overall Score"],
        "overall score, over all turns",
        metrics,
        verdicts,
        "comparable only under the same judge and prompts",
        turns=turns,
        unparsed_turns=unread,
    )
