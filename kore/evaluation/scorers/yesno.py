"""Yes/no benchmarks: MME, POPE, HallusionBench, and anyone's own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from kore.data.benchmark_tsv import Row
from kore.errors import DataError
from kore.evaluation.judge import JudgeRequest
from kore.evaluation.scorers.scorer_context import ScorerContext, grouped, mean
from kore.evaluation.text_normalize import vqa_punctuation
from kore.evaluation.types import Scored, Verdict

UNKNOWN = "Unknown"
PERCEPTION = (
    "OCR",
    "artwork",
    "celebrity",
    "color",
    "count",
    "existence",
    "landmark",
    "position",
    "posters",
    "scene",
)
REASONING = ("code_reasoning", "commonsense_reasoning", "numerical_calculation", "text_translation")
MME_FULL = 2800  # 14 categories of 200 points


def extract(text: str) -> str:
    """Yes or No where exactly one of them is a word of the answer, else Unknown."""
    words = vqa_punctuation(text.lower(), lone_periods_only=True).split()
    found = {"yes", "no"} & set(words)
    return found.pop().capitalize() if len(found) == 1 else UNKNOWN


def native_mme(text: str) -> str:
    """MME's own rule: yes or no among the first four characters."""
    lowered = text.strip().lower()
    start = lowered[:4]
    return "Yes" if "yes" in start else "No" if "no" in start else UNKNOWN


def native_pope(text: str) -> str:
    """POPE's rule in LLaVA's scripts: no if ``No``, ``no`` or ``not`` is a word of the first sentence,
    else yes."""
    words = text.split(".")[0].replace(",", "").split(" ")
    return "No" if {"No", "no", "not"} & set(words) else "Yes"


def requests(context: ScorerContext) -> list[JudgeRequest]:
    """Ask a judge about every answer that is neither."""
    found = []
    for row in context.rows:
        said = context.prediction(row)
        if said is not None and _by_rule(context, said) == UNKNOWN:
            text = context.prompts.fill("yes_no", question=row.get("question"), prediction=said)
            found.append(JudgeRequest(row.index, text, lambda reply: extract(reply) != UNKNOWN))
    return found


def _by_rule(context: ScorerContext, said: str) -> str:
    if context.protocol == "llava-native" and context.name == "MME":
        return native_mme(said)
    if context.protocol == "llava-native" and context.name == "POPE":
        return native_pope(said)
    return extract(said)


def _verdicts(context: ScorerContext, *, any_case: bool = False) -> list[Verdict]:
    found = []
    for row in context.rows:
        said = context.prediction(row)
        word = UNKNOWN if said is None else _by_rule(context, said)
        if word == UNKNOWN and row.index in context.replies.readable:
            word = extract(context.replies.readable[row.index])
        key = row.get("answer")
        right = word == (key.capitalize() if any_case else key)
        found.append(context.verdict(row, key, float(right), f"read as {word}", extracted=word))
    return found


def _unknown(verdicts: Sequence[Verdict]) -> int:
    return sum(v.parts.get("extracted") == UNKNOWN for v in verdicts if v.prediction is not None)


def mme(context: ScorerContext) -> Scored:
    """MME: per category accuracy + accuracy over pictures (both questions right), 0 to 200; sums over
    perception (2000) and reasoning (800); the headline is their sum on a scale of 100."""
    verdicts = _verdicts(context)
    pictures: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row, verdict in zip(context.rows, verdicts, strict=True):
        pictures[row.get("category")][row.get("image_path") or row.index].append(verdict.score or 0.0)
    scores: dict[str, float] = {}
    unpaired = 0
    for category, found in pictures.items():
        single = 100 * mean(value for values in found.values() for value in values)
        pairs = [values[0] * values[1] for values in found.values() if len(values) > 1]
        unpaired += len(found) - len(pairs)
        scores[category] = single + 100 * mean(pairs)
    metrics = {
        "perception": sum(scores.get(c, 0.0) for c in PERCEPTION),
        "reasoning": sum(scores.get(c, 0.0) for c in REASONING),
    }
    metrics["total"] = metrics["perception"] + metrics["reasoning"]
    metrics["normalised"] = 100 * metrics["total"] / MME_FULL
    metrics |= {f"category.{c}": s for c, s in sorted(scores.items())}
    absent = sorted({*PERCEPTION, *REASONING} - scores.keys())
    notes = (f"no row of {', '.join(absent)}: counted 0",) if absent else ()
    return context.scored(
        metrics["normalised"],
        "(perception + reasoning) / 28",
        metrics,
        verdicts,
        *notes,
        unknown=_unknown(verdicts),
        unpaired=unpaired,
    )


def pope(context: ScorerContext) -> Scored:
    """POPE: F1 of Yes over rows exploded by category; Unknown counts as No for F1, as wrong for accuracy."""
    verdicts = _verdicts(context)
    exploded: list[tuple[str | None, Verdict]] = []
    for row, verdict in zip(context.rows, verdicts, strict=True):
        for category in row.cells["category"].split(",") if "category" in row.cells else [None]:
            exploded.append((category, verdict))
    metrics = _f1("Overall", [v for _, v in exploded])
    names = sorted({c for c, _ in exploded if c is not None})
    for name in names:
        metrics |= _f1(name, [v for c, v in exploded if c == name])
    headline, figure = metrics["Overall.f1"], "F1"
    if context.protocol == "llava-native" and names:
        headline, figure = mean(metrics[f"{name}.f1"] for name in names), "F1, mean of the categories"
    return context.scored(
        headline, figure, metrics, verdicts, unknown=_unknown(verdicts), exploded=len(exploded)
    )


def _f1(name: str, verdicts: Sequence[Verdict]) -> dict[str, float]:
    truth = [v.answer == "Yes" for v in verdicts]
    said = [v.parts["extracted"] == "Yes" for v in verdicts]
    hits = sum(t and s for t, s in zip(truth, said, strict=True))
    precision = hits / sum(said) if any(said) else 0.0
    recall = hits / sum(truth) if any(truth) else 0.0
    both = precision + recall
    return {
        f"{name}.f1": 100 * (2 * precision * recall / both if both else 0.0),
        f"{name}.accuracy": 100 * mean(v.score for v in verdicts),
        f"{name}.precision": 100 * precision,
        f"{name}.recall": 100 * recall,
        f"{name}.yes_rate": 100 * mean(map(float, said)),
    }


def hallusion(context: ScorerContext) -> Scored:
    """HallusionBench: accuracy by question (a), by figure (f) and by question pair (q); all three and
    their mean, overall and by both levels of category."""
    keys = [_parts(row) for row in context.rows]
    verdicts = _verdicts(context)
    metrics: dict[str, float] = {}
    chosen: dict[str, list[int]] = {"Overall": list(range(len(verdicts)))}
    for column in ("category", "l2-category"):
        for i, row in enumerate(context.rows):
            if column in row.cells:
                chosen.setdefault(f"{column}.{row.cells[column]}", []).append(i)
    for name, indices in chosen.items():
        figures: dict[tuple[str, str, str], bool] = {}
        questions: dict[tuple[str, str, str], bool] = {}
        for i in indices:
            (group, figure, question), right = keys[i], verdicts[i].score == 1.0
            area = context.rows[i].get("l2-category")
            figures[(area, group, figure)] = figures.get((area, group, figure), True) and right
            questions[(area, group, question)] = questions.get((area, group, question), True) and right
        metrics[f"{name}.aAcc"] = 100 * mean(verdicts[i].score for i in indices)
        metrics[f"{name}.fAcc"] = 100 * mean(map(float, figures.values()))
        metrics[f"{name}.qAcc"] = 100 * mean(map(float, questions.values()))
    metrics["mean"] = mean(metrics[f"Overall.{k}"] for k in ("aAcc", "fAcc", "qAcc"))
    return context.scored(
        metrics["mean"], "mean of aAcc, fAcc, qAcc", metrics, verdicts, unknown=_unknown(verdicts)
    )


def _parts(row: Row) -> tuple[str, str, str]:
    parts = row.index.split("_")
    if len(parts) < 6:
        raise DataError(f"index {row.index}: expected six parts joined by _", where=row.where or None)
    return parts[3], parts[4], parts[5]


def plain(context: ScorerContext) -> Scored:
    """Anyone's own yes/no file: accuracy, overall and by category."""
    verdicts = _verdicts(context, any_case=True)
    values = [v.score or 0.0 for v in verdicts]
    metrics = {"Overall": 100 * mean(values)}
    for column in ("category", "l2-category"):
        metrics |= {f"{column}.{k}": 100 * mean(v) for k, v in grouped(context.rows, values, column).items()}
    return context.scored(metrics["Overall"], "accuracy", metrics, verdicts, unknown=_unknown(verdicts))
