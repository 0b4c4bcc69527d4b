"""Question suites: EVOKE's evaluation file, anyone's own eval.jsonl, and the demo's retention suites.

One JSON object a line in EVOKE's form (`kore.data.records.Question`). Adaptation files are scored by CEM and
F1, overall, by news and entity, by type, and by item; retention files by accuracy, by the rule that each
question's own answer calls for: an option letter, Yes or No, or CEM.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from kore.data.records import IMAGE_MARK, Question, read_located
from kore.data.task import Task, TaskImage, UserTurn
from kore.errors import DataError
from kore.evaluation.metrics import Adaptation, measure
from kore.evaluation.option_matching import infer
from kore.evaluation.types import Answers, Outcome, Role, Scored, Verdict, outcome_of
from kore.io.files import hash_file, hash_json

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
        near: whether the suite lies near the new knowledge (reported as `k_r_near`, not in K.R).
        split: only questions whose ``split`` is this were read, if given.
        lines: question_id -> where it was read, for errors about its pictures.
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
            "file": self.path, "data": self.data, "rows": len(self.questions), "split": self.split,
            "metric": "evoke" if self.role == "adaptation" else "accuracy",
        }  # fmt: skip
        object.__setattr__(self, "facts", facts)

    def __len__(self) -> int:
        return len(self.questions)

    def tasks(self) -> Iterator[Task]:
        """One single-turn task per question, its pictures before its text."""
        for question in self.questions:
            where = self.lines.get(question.question_id, "")
            pictures = tuple(TaskImage(path, where=where) for path in question.images)
            missing = len(pictures) - question.text.count(IMAGE_MARK)
            text = f"{IMAGE_MARK}\n" * missing + question.text
            yield Task(question.question_id, (UserTurn(text, pictures),))

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
        DataError: a bad line, an id twice, an empty question, more marks than pictures, nothing left.
    """
    kept: list[Question] = []
    seen: set[str] = set()
    lines: dict[str, str] = {}
    for line, question in read_located(Question, path, image_root=image_root):
        where = f"{line}: question {question.question_id}"
        if question.question_id in seen:
            raise DataError("the same question_id twice", where=where)
        if not question.text.strip():
            raise DataError("text: must not be empty", where=where)
        if question.text.count(IMAGE_MARK) > len(question.images):
            raise DataError("more <image> marks than pictures", where=where)
        seen.add(question.question_id)
        own = question.extra.get("split")
        if split is None or own is None or own == split:
            kept.append(question)
            lines[question.question_id] = where
    if not kept:
        raise DataError(f"holds no question of split {split!r}", where=str(path))
    return QuestionSuite(name or path.stem, role, kept, str(path), hash_file(path), near, split, lines)


def half(suite: QuestionSuite, split: str) -> QuestionSuite:
    """The half of an undivided suite: settings are chosen on ``validation``, results told of ``test``."""
    mine = [q for q in suite.questions if _half_of(q) == split]
    return replace(suite, questions=mine, split=split)


def _half_of(question: Question) -> str:
    return "validation" if int(hash_json(question.question_id), 16) % 2 else "test"


def rule_of(question: Question) -> Rule:
    """How an answer to this question is judged: by letter where it offers options and the answer is one,
    by yes or no where that is the answer, else by CEM."""
    golds = [gold.strip() for gold in question.answers]
    if golds and all(g.lower() in ("yes", "no") for g in golds):
        return "yesno"
    options = options_of(question.text)
    return "letter" if golds and len(options) > 1 and all(g in options for g in golds) else "cem"


def options_of(text: str) -> dict[str, str]:
    """Letter -> text of the options that a question lists, one a line."""
    return dict(_OPTION.findall(text))


def letter_of(prediction: str) -> str | None:
    """The option letter an answer opens with (``B``, ``(B)``, ``b.``, ``Answer: B``), upper case."""
    match = _LETTER.match(prediction)
    if match is None:
        return None
    letter = match.group(1)
    # a lower-case "a" that opens a sentence is an article, not an option
    if letter.islower() and len(_WORD.findall(prediction)) > 1 and match.group(0).strip().lower() == letter:
        return None
    return letter.upper()


def yes_or_no(prediction: str) -> str | None:
    """Yes or No where exactly one of the two words occurs."""
    words = {word.lower() for word in _WORD.findall(prediction)}
    found = words & {"yes", "no"}
    return found.pop().capitalize() if len(found) == 1 else None


def judge(prediction: str, question: Question) -> tuple[float, str]:
    """Score (0 or 1) of one retention answer and why, by `rule_of` the question."""
    golds = question.answers
    rule = rule_of(question)
    if rule == "letter":
        letter = letter_of(prediction) or infer(prediction, options_of(question.text))
        return float(letter in {g.strip() for g in golds}), f"letter {letter or 'not found'}"
    if rule == "yesno":
        word = yes_or_no(prediction)
        return float(word in {g.strip().capitalize() for g in golds}), f"{word or 'neither yes nor no'}"
    score = measure(prediction, golds).cem_clean
    return score, "answer found" if score else "answer not found"


def _score_retention(suite: QuestionSuite, answers: Answers) -> Scored:
    verdicts = []
    for question in suite.questions:
        prediction = _first(answers, question.question_id)
        score, why = (0.0, "no prediction") if prediction is None else judge(prediction, question)
        verdicts.append(_verdict(question, prediction, score, why, {}))
    metrics = {"accuracy": _percent(v.score for v in verdicts)}
    metrics |= _groups(suite.questions, [v.score or 0.0 for v in verdicts], lambda q: q.type, "type")
    return Scored(
        suite.name, "retention", metrics["accuracy"], "accuracy", metrics, _counts(verdicts),
        verdicts, near=suite.near,
    )  # fmt: skip


def _score_adaptation(suite: QuestionSuite, answers: Answers) -> Scored:
    measures: list[Adaptation] = []
    verdicts: list[Verdict] = []
    for question in suite.questions:
        prediction = _first(answers, question.question_id)
        found = measure(prediction, question.answers)
        measures.append(found)
        score = max(found.cem, found.cem_clean)
        why = "no prediction" if prediction is None else _why(found)
        verdicts.append(_verdict(question, prediction, score, why, dict(found.__dict__)))
    metrics: dict[str, float] = {}
    for key in ("cem", "cem_clean", "f1", "f1_set"):
        values = [getattr(m, key) for m in measures]
        metrics[key] = _percent(values)
        metrics |= _groups(suite.questions, values, _kind_of, f"{key}.kind")
        metrics |= _groups(suite.questions, values, lambda q: q.type, f"{key}.type")
    metrics["k_a"] = (metrics["cem"] + metrics["f1"]) / 2
    characters = sum(m.by_character for m in measures)
    notes = (
        (f"F1 counts characters for {characters} answers in scripts without spaces",) if characters else ()
    )
    counts = {**_counts(verdicts), "by_character": characters}
    return Scored(
        suite.name, "adaptation", metrics["k_a"], "mean of CEM and F1", metrics, counts, verdicts, notes,
        _items(verdicts),
    )  # fmt: skip


def _why(found: Adaptation) -> str:
    if found.cem:
        return "answer found"
    return "answer found once stray quotes or signs are dropped" if found.cem_clean else "answer not found"


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
        question.question_id, question.text, " | ".join(question.answers), prediction, score, outcome, why,
        parts, _item_of(question),
    )  # fmt: skip


def _items(verdicts: Iterable[Verdict]) -> dict[str, str]:
    """Per item: learned (every question right), partly, not."""
    scores: dict[str, list[float]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.group is not None:
            scores[verdict.group].append(verdict.score or 0.0)
    named = {}
    for item, values in scores.items():
        named[item] = "learned" if min(values) >= 1 else "partly" if max(values) > 0 else "not"
    return named


def _first(answers: Answers, name: str) -> str | None:
    turns = answers.get(name)
    return turns[0] if turns else None


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
    return {f"{label}.{name}": _percent(found) for name, found in sorted(grouped.items())}
