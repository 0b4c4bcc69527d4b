"""Question suites: EVOKE's evaluation file, a user's own eval.jsonl, and the demo's retention suites.

One JSON object a line in EVOKE's form (`kore.data.records.Question`). Adaptation files are scored by CEM and
F1, overall, by news and entity, by type, and by item; retention files by accuracy, under the rule that each
question's gold answers imply: an option letter, Yes or No, or CEM.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from kore.data.objects import hash_source, name_of
from kore.data.read import read_located
from kore.data.records import IMAGE_MARK, Question
from kore.data.task import Task, TaskImage, UserTurn
from kore.errors import DataError, Faults
from kore.evaluation.metrics import Adaptation, by_character, measure
from kore.evaluation.option_matching import infer
from kore.evaluation.types import Answers, Outcome, Role, Scored, Verdict, first_answer, outcome_of
from kore.io.files import hash_json

Rule = Literal["cem", "letter", "yesno"]
_KINDS = {"news": "news", "wiki": "entity", "entity": "entity"}
_LETTER = re.compile(
    r"^\W*(?:(?:the\s+)?(?:correct\s+)?answer\s*(?:is|:)?\s*|option\s+)?\W*([A-Z])(?![A-Za-z0-9])", re.I
)
_OPTION = re.compile(r"(?m)^\s*\(?([A-Z])[.):][^\S\n]+(.*\S)")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class QuestionSuite:
    """Questions from one JSONL file.

    Attributes:
        near: whether the suite is close to the new knowledge (reported as `k_r_near`, not in K.R).
        split: the ``split`` of its questions, if they have one.
        lines: question_id -> its place in the file, for errors about its images.
    """

    name: str
    role: Role
    questions: Sequence[Question]
    path: str
    data: str
    near: bool = False
    split: str | None = None
    lines: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        facts = {
            "file": self.path,
            "data": self.data,
            "rows": len(self.questions),
            "split": self.split,
            "metric": "evoke" if self.role == "adaptation" else "accuracy",
        }
        object.__setattr__(self, "facts", facts)

    def __len__(self) -> int:
        return len(self.questions)

    def tasks(self) -> Iterator[Task]:
        """One single-turn task per question, its images before its text."""
        for question in self.questions:
            where = self.lines.get(question.question_id, "")
            images = tuple(TaskImage(path, where=where) for path in question.images)
            missing = len(images) - question.text.count(IMAGE_MARK)
            text = f"{IMAGE_MARK}\n" * missing + question.text
            yield Task(question.question_id, (UserTurn(text, images),))

    def score(self, answers: Answers) -> Scored:
        """CEM and F1 with their breakdowns (adaptation), or accuracy (retention)."""
        if self.role == "adaptation":
            return _score_adaptation(self, answers)
        return _score_retention(self, answers)


def load_questions(
    path: Path,
    *,
    name: str | None = None,
    role: Role = "adaptation",
    split: str | None = None,
    near: bool = False,
    image_root: Path | None = None,
) -> QuestionSuite:
    """Read a suite.

    Args:
        split: keep only questions with this ``split``; questions without one are always kept.

    Raises:
        DataError: a bad line, an id twice, an empty question or answer, more marks than images, nothing left.
    """
    kept: list[Question] = []
    seen: set[str] = set()
    lines: dict[str, str] = {}
    faults = Faults()
    for line, question in read_located(Question, path, image_root=image_root, on_error=faults.add):
        where = f"{line}: question {question.question_id}"
        if fault := _fault(question, seen):
            faults.add(DataError(fault, where=where))
        seen.add(question.question_id)
        own = question.extra.get("split")
        if split is None or own is None or own == split:
            kept.append(question)
            lines[question.question_id] = where
    faults.check()
    if not kept:
        raise DataError(f"no question of split {split!r}", where=str(path))
    return QuestionSuite(name or name_of(path), role, kept, str(path), hash_source(path), near, split, lines)


def _fault(question: Question, seen: set[str]) -> str | None:
    """What is wrong with a question among those before it."""
    if question.question_id in seen:
        return "question_id occurs twice"
    if not question.text.strip():
        return "text: must not be empty"
    if not question.answers or not all(map(str.strip, question.answers)):
        return "answer: must not be empty"
    return None


def half(suite: QuestionSuite, split: str) -> QuestionSuite:
    """Half of a suite without splits: settings are chosen on ``validation``, results reported on ``test``."""
    questions = [q for q in suite.questions if _half_of(q) == split]
    return replace(suite, questions=questions, split=split)


def _half_of(question: Question) -> str:
    return "validation" if int(hash_json(question.question_id), 16) % 2 else "test"


def rule_of(question: Question) -> Rule:
    """The scoring rule: letter if the question has options and every gold answer is one of their letters,
    yesno if every gold answer is yes or no, else CEM."""
    golds = [gold.strip() for gold in question.answers]
    if golds and all(g.lower() in ("yes", "no") for g in golds):
        return "yesno"
    options = options_of(question.text)
    return "letter" if golds and len(options) > 1 and all(g in options for g in golds) else "cem"


def options_of(text: str) -> dict[str, str]:
    """Letter -> text of the options in a question, one a line."""
    return dict(_OPTION.findall(text))


def letter_of(prediction: str) -> str | None:
    """The option letter that an answer starts with (``B``, ``(B)``, ``b.``, ``Answer: B``), upper case."""
    match = _LETTER.match(prediction)
    if match is None:
        return None
    letter = match.group(1)
    # a lower-case "a" at the start of a sentence is an article, not an option
    if letter.islower() and len(_WORD.findall(prediction)) > 1 and match.group(0).strip().lower() == letter:
        return None
    return letter.upper()


def yes_or_no(prediction: str) -> str | None:
    """Yes or No where exactly one of the two words occurs."""
    words = {word.lower() for word in _WORD.findall(prediction)}
    present = words & {"yes", "no"}
    return present.pop().capitalize() if len(present) == 1 else None


def judge(prediction: str, question: Question) -> tuple[float, str]:
    """Score (0 or 1) of one retention answer, by the question's rule, and why."""
    golds = question.answers
    rule = rule_of(question)
    if rule == "letter":
        letter = letter_of(prediction) or infer(prediction, options_of(question.text))
        return float(letter in {g.strip() for g in golds}), f"letter {letter}" if letter else "no letter"
    if rule == "yesno":
        word = yes_or_no(prediction)
        return float(word in {g.strip().capitalize() for g in golds}), f"{word or 'neither yes nor no'}"
    score = measure(prediction, golds).cem_clean
    return score, "contains the answer" if score else "answer not in it"


def _score_retention(suite: QuestionSuite, answers: Answers) -> Scored:
    verdicts = []
    for question in suite.questions:
        prediction = first_answer(answers, question.question_id)
        score, why = (0.0, "no prediction") if prediction is None else judge(prediction, question)
        verdicts.append(_verdict(question, prediction, score, why, {}))
    metrics = {"accuracy": _percent(v.score for v in verdicts)}
    metrics |= _groups(suite.questions, [v.score or 0.0 for v in verdicts], lambda q: q.type, "type")
    characters = sum(rule_of(q) == "cem" and any(map(by_character, q.answers)) for q in suite.questions)
    return Scored(
        suite.name,
        "retention",
        metrics["accuracy"],
        "accuracy",
        metrics,
        _counts(verdicts),
        verdicts,
        _character_note(characters, "CEM"),
        near=suite.near,
    )


def _score_adaptation(suite: QuestionSuite, answers: Answers) -> Scored:
    measures: list[Adaptation] = []
    verdicts: list[Verdict] = []
    for question in suite.questions:
        prediction = first_answer(answers, question.question_id)
        measured = measure(prediction, question.answers)
        measures.append(measured)
        score = max(measured.cem, measured.cem_clean)
        why = "no prediction" if prediction is None else _why(measured)
        verdicts.append(_verdict(question, prediction, score, why, dict(measured.__dict__)))
    metrics: dict[str, float] = {}
    for key in ("cem", "cem_clean", "f1", "f1_set"):
        values = [getattr(m, key) for m in measures]
        metrics[key] = _percent(values)
        metrics |= _groups(suite.questions, values, _kind_of, f"{key}.kind")
        metrics |= _groups(suite.questions, values, lambda q: q.type, f"{key}.type")
    metrics["k_a"] = (metrics["cem"] + metrics["f1"]) / 2
    characters = sum(m.by_character for m in measures)
    counts = {**_counts(verdicts), "by_character": characters}
    return Scored(
        suite.name,
        "adaptation",
        metrics["k_a"],
        "mean of CEM and F1",
        metrics,
        counts,
        verdicts,
        _character_note(characters, "CEM and F1"),
        _items(verdicts),
    )


def _character_note(count: int, metrics: str) -> tuple[str, ...]:
    return (
        (f"{metrics} compare by character, as scripts without spaces need; answers: {count}",)
        if count
        else ()
    )


def _why(measured: Adaptation) -> str:
    if measured.cem:
        return "contains the answer"
    return "contains the answer without stray quotes or signs" if measured.cem_clean else "answer not in it"


def _kind_of(question: Question) -> str | None:
    return _KINDS.get(question.cnn_wiki_type or "", question.cnn_wiki_type)


def _item_of(question: Question) -> str | None:
    for key in ("item", "item_id"):
        if isinstance(question.extra.get(key), (str, int)):
            return str(question.extra[key])
    return None


def _verdict(
    question: Question, prediction: str | None, score: float, why: str, parts: dict[str, Any]
) -> Verdict:
    outcome: Outcome = "missing" if prediction is None else outcome_of(score)
    parts = {**parts, "type": question.type, "images": question.images}
    return Verdict(
        question.question_id,
        question.text,
        " | ".join(question.answers),
        prediction,
        score,
        outcome,
        why,
        parts,
        _item_of(question),
    )


def _items(verdicts: Iterable[Verdict]) -> dict[str, str]:
    """Per item: learned (every question right), partly, not."""
    scores: dict[str, list[float]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.group is not None:
            scores[verdict.group].append(verdict.score or 0.0)
    return {
        item: "learned" if min(values) >= 1 else "partly" if max(values) > 0 else "not"
        for item, values in scores.items()
    }


def _counts(verdicts: Sequence[Verdict]) -> dict[str, int]:
    return {"samples": len(verdicts), "missing": sum(v.prediction is None for v in verdicts)}


def _percent(values: Iterable[float | None]) -> float:
    numbers = [value or 0.0 for value in values]
    return 100 * sum(numbers) / len(numbers) if numbers else 0.0


def _groups(
    questions: Sequence[Question], values: Sequence[float], key: Callable[[Question], str | None], label: str
) -> dict[str, float]:
    grouped: dict[str, list[float]] = defaultdict(list)
    for question, value in zip(questions, values, strict=True):
        name = key(question)
        if name:
            grouped[name].append(value)
    return {f"{label}.{name}": _percent(group) for name, group in sorted(grouped.items())}
