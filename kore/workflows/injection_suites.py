"""The suites that ``kore inject`` evaluates: the items' own questions, and what must be kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kore.artifacts.run import data_root
from kore.data.read import read_records
from kore.data.records import Sample
from kore.evaluation.agreement import load_agreement
from kore.evaluation.questions import load_questions
from kore.evaluation.suite_options import SuiteOptions
from kore.evaluation.suites import resolve_suites
from kore.evaluation.types import Suite
from kore.workflows.retention_samples import ASKED
from kore.workflows.sequential import Batch


def suites_for(named: Sequence[str], options: SuiteOptions, tree: Path, old: Path | None) -> list[Suite]:
    """The items' own questions, then the named suites, else agreement with the base on old prompts."""
    own: list[Suite] = [load_questions(tree / "eval.jsonl", name="items")]
    if named:
        return own + resolve_suites(named, options)
    assert old is not None
    return [*own, load_agreement(old, limit=ASKED)]


def suite_options(data_dir: Path | None) -> SuiteOptions:
    """Where suites are looked for; what is new is the items' own questions alone."""
    return SuiteOptions(data=data_dir or data_root(), role="retention")


def earlier_suites(earlier: Sequence[Batch]) -> list[Suite]:
    """The questions on every earlier batch's items, as far as they are there."""
    return [
        load_questions(batch.questions, name=f"batch {number}")
        for number, batch in enumerate(earlier, 1)
        if batch.questions is not None and batch.questions.is_file()
    ]


def asked_as_trained(tree: Path) -> int:
    """Questions on a picture that training shows, too: for want of other pictures of the item."""
    shown = {image for sample in read_records(Sample, tree / "samples.jsonl") for image in sample.images}
    questions = load_questions(tree / "eval.jsonl", name="items").questions
    return sum(any(image in shown for image in question.images) for question in questions)
