"""Suites for models that read no images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kore.data.records import IMAGE_MARK
from kore.data.task import Task
from kore.errors import MissingArtefact, UsageError
from kore.evaluation.agreement import AgreementSuite
from kore.evaluation.questions import QuestionSuite
from kore.evaluation.types import Suite


def takes_images(model: str) -> bool:
    """Whether a model reads images; one that is not here yet is taken to."""
    from kore.models.load import model_folder, reads_images

    try:
        return reads_images(model_folder(model))
    except MissingArtefact:
        return True


def without_images(suites: Sequence[Suite]) -> tuple[list[Suite], list[str]]:
    """What of the suites can be asked in text alone, and a note on each that is changed.

    Questions on new knowledge are asked without their images. Of old questions, whose answers the image
    decides, those with images are left out; a benchmark that has some is left out as a whole.

    Raises:
        UsageError: nothing is left.
    """
    kept: list[Suite] = []
    notes: list[str] = []
    for suite in suites:
        shown = sum(map(_shows, suite.tasks()))
        if not shown:
            kept.append(suite)
            continue
        rest: Suite | None = None
        if isinstance(suite, QuestionSuite) and suite.role == "adaptation":
            notes.append(f"{suite.name}: {shown} questions are asked without their images")
            bare = [
                q.model_copy(update={"image": None, "text": q.text.replace(IMAGE_MARK, "").strip()})
                for q in suite.questions
            ]
            rest = replace(suite, questions=bare)
        elif isinstance(suite, QuestionSuite) and shown < len(suite):
            rest = replace(suite, questions=[q for q in suite.questions if not q.images])
        elif isinstance(suite, AgreementSuite) and shown < len(suite):
            rest = replace(suite, prompts=[task for task in suite.prompts if not _shows(task)])
        if rest is not None:
            kept.append(rest)
        if rest is None or len(rest) < len(suite):
            lost = f"{shown} of {len(suite)} samples are" if rest else "it is"
            notes.append(f"{suite.name} asks about images, which the model does not read: {lost} left out")
    if suites and not kept:
        raise UsageError("the model reads no images, and every suite asks about some", hint="; ".join(notes))
    return kept, notes


def _shows(task: Task) -> bool:
    return any(turn.images for turn in task.turns)
