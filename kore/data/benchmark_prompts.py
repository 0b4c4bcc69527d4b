"""A benchmark's row as a prompt, in the forms of VLMEvalKit and of LLaVA's own scripts.

Evaluation and calibration (``bench:NAME`` samples) build their prompts here, so that what is protected is
what is evaluated. The suffixes are fixed by the protocols: another phrasing would be another benchmark.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from kore.artifacts.model_folder import read_config
from kore.data.benchmark_tsv import Row, literal_list
from kore.data.records import IMAGE_MARK
from kore.data.task import Task, TaskImage, UserTurn
from kore.errors import DataError

Style = Literal["default", "llava"]
SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
SELECT = "Please select the correct answer from the options above. \n"
DIRECT = "\nAnswer the question directly."
MME_SUFFIX = "Please answer yes or no."
_MARK = re.compile(r"<image (\d)>")
_DIALOGUE_MARK = "<ImageHere>"
_HAN = re.compile(r"[\u4e00-\u9fff]")
_LETTER_HAN = "\n请直接回答选项字母。"
_DIRECT_HAN = "\n请直接回答问题。"


@dataclass(frozen=True)
class PromptForm:
    """What decides a benchmark's prompt besides the row and the benchmark's kind.

    Attributes:
        protocol: ``vlmeval`` or ``llava-native``.
        style: ``llava`` for LLaVA models, whose multiple-choice form differs.
    """

    protocol: str = "vlmeval"
    style: Style = "default"

    @classmethod
    def of_model(cls, model: str, protocol: str, *, download: bool = False) -> PromptForm:
        """The form for a model, read from its configuration; the default style where that is not at hand."""
        is_llava = (read_config(model, download=download) or {}).get("model_type") == "llava"
        return cls(protocol, "llava" if is_llava else "default")


DEFAULT_FORM = PromptForm()


def task_of(row: Row, kind: str, form: PromptForm = DEFAULT_FORM) -> Task:
    """The prompt of a row.

    Args:
        kind: the benchmark's kind, see `kore.data.benchmarks.Benchmark`.

    Raises:
        DataError: marks that point to no image, with file and line.
    """
    images = row.task_images()
    if kind == "mmdu":
        return Task(row.index, tuple(_dialogue(row, images)))
    text = _text(row, kind, form)
    if kind == "mmmu" and form.style == "default" and _MARK.search(text):
        return Task(row.index, (_interleaved(row, text, images),))
    return Task(row.index, (UserTurn(f"{IMAGE_MARK}\n" * len(images) + _without_marks(text), images),))


def _text(row: Row, kind: str, form: PromptForm) -> str:
    question = row.get("question")
    native = form.protocol == "llava-native"
    if kind in ("mcq", "circular", "mmmu"):
        return _choice(row, question, "llava" if native else form.style)
    if kind in ("ocrvqa", "vqa") or (native and kind == "pope"):
        return question + SHORT
    if native and kind == "mme":
        return question.replace(MME_SUFFIX, "").rstrip() + SHORT
    return question


def _choice(row: Row, question: str, style: Style) -> str:
    options, hint = row.options, row.get("hint")
    if style == "llava":
        text = (f"{hint}\n" if hint else "") + question
        text += "".join(f"\n{letter}. {option}" for letter, option in options.items())
        han = _HAN.search(text) is not None
        if options:
            return text + (_LETTER_HAN if han else LETTER)
        return text + (_DIRECT_HAN if han else DIRECT)
    text = (f"Hint: {hint}\n" if hint else "") + f"Question: {question}\n"
    if options:
        text += "Options:\n" + "".join(f"{letter}. {option}\n" for letter, option in options.items()) + SELECT
    return text


def _interleaved(row: Row, text: str, images: tuple[TaskImage, ...]) -> UserTurn:
    """Images where the text names them, as often as it does; those it does not name are not shown."""
    shown: list[TaskImage] = []

    def place(match: re.Match[str]) -> str:
        number = int(match.group(1))
        if not 1 <= number <= len(images):
            raise DataError(f"{match.group(0)} of {len(images)} images", where=row.where or None)
        shown.append(images[number - 1])
        return IMAGE_MARK

    return UserTurn(_MARK.sub(place, _without_marks(text)), tuple(shown))


def _dialogue(row: Row, images: tuple[TaskImage, ...]) -> list[UserTurn]:
    turns, used = [], 0
    for question in literal_list(row.get("question"), row.where):
        count = question.count(_DIALOGUE_MARK)
        if used + count > len(images):
            raise DataError(
                f"more {_DIALOGUE_MARK} marks than images ({len(images)})", where=row.where or None
            )
        text = _without_marks(question).replace(_DIALOGUE_MARK, IMAGE_MARK)
        turns.append(UserTurn(text, images[used : used + count]))
        used += count
    return turns


def _without_marks(text: str) -> str:
    """A benchmark's text that contains ``<image>`` must not refer to an image."""
    return text.replace(IMAGE_MARK, "<image >")
