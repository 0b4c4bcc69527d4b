"""Which probes a run asks: named ones, else a few of the questions that came with its data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kore.data.read import read_records
from kore.data.records import IMAGE_MARK, Question, Sample
from kore.evaluation.metrics import cem_clean
from kore.io.files import hash_bytes
from kore.training.probes import Probe, Probing, read_probes

if TYPE_CHECKING:
    from kore.config.resolve import TrainSection

NEW = 8  # probes of each kind
QUESTIONS = "eval.jsonl"


def right(answer: str, known: str) -> bool:
    """Whether an answer covers the known one."""
    return bool(cem_clean(answer, known))


def find_questions(data: str) -> Path | None:
    """The evaluation questions that ``kore augment`` wrote beside the samples, if they are there."""
    path = Path(data).parent / QUESTIONS
    return path if path.is_file() else None


def find_probes(
    named: Path | None, questions: Path | None, old: Sequence[Sample], section: TrainSection
) -> Probing | None:
    """The run's probes, or None when there is nothing to ask.

    Args:
        named: a file of probes; it alone is used.
        questions: evaluation questions on the new items: ``new`` probes.
        old: retention samples with answers: ``old`` probes.
    """
    probes = read_probes(named) if named else []
    if not named and questions:
        probes += _spread([_from_question(q) for q in read_records(Question, questions)])
    if not named:
        probes += _spread([p for s in old if (p := _from_sample(s)) is not None])
    if not probes:
        return None
    return Probing(probes, right, share=section.probe_share, steps=section.probe_steps)


def _spread(probes: list[Probe]) -> list[Probe]:
    """At most `NEW` of them, in their order: a choice that is the same every time and follows no pattern.

    Questions come item by item with the same types in each, so that every n-th could be of one type alone.
    """
    chosen = sorted(range(len(probes)), key=lambda i: hash_bytes(probes[i].id.encode()))[:NEW]
    return [probes[i] for i in sorted(chosen)]


def _from_question(question: Question) -> Probe:
    image = question.images[0] if question.images else None
    return Probe(question.question_id, "new", question.text, question.answers[0], image)


def _from_sample(sample: Sample) -> Probe | None:
    if len(sample.images) > 1 or len(sample.conversations) < 2:
        return None
    asked, answer = sample.conversations[:2]
    if asked.from_ != "human" or answer.from_ != "gpt":
        return None
    text = asked.value.replace(IMAGE_MARK, "").strip()
    return Probe(sample.id, "old", text, answer.value, sample.images[0] if sample.images else None)
