"""How a benchmark's row becomes a prompt: the forms of VLMEvalKit, and of LLaVA's own scripts.

The suffixes are fixed by the protocols: another wording would be another benchmark.
"""

from __future__ import annotations

import re
from typing import Literal

from kore.data.records import IMAGE_MARK
from kore.errors import DataError
from kore.evaluation.rows import Row, literal_list
from kore.evaluation.types import Ask, Picture, Task

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


def task_of(row: Row, kind: str, *, style: Style = "default", protocol: str = "vlmeval") -> Task:
    """The prompt of a row.

    Args:
        kind: the benchmark's kind; decides the form.
        style: ``llava`` for LLaVA models, whose multiple-choice form differs.

    Raises:
        DataError: marks that point to no picture, with file and line.
    """
    pictures = _pictures(row)
    if kind == "mmdu":
        return Task(row.index, tuple(_dialogue(row, pictures)))
    text = _text(row, kind, style, protocol)
    if kind == "mmmu" and style == "default" and _MARK.search(text):
        return Task(row.index, (_interleaved(row, text, pictures),))
    return Task(row.index, (Ask(f"{IMAGE_MARK}\n" * len(pictures) + _plain(text), pictures),))


def _text(row: Row, kind: str, style: Style, protocol: str) -> str:
    question = row.get("question")
    if kind in ("mcq", "circular", "mmmu"):
        return _choice(row, question, "llava" if protocol == "llava-native" else style)
    if kind in ("ocrvqa", "vqa"):
        return question + SHORT
    if protocol == "llava-native" and kind == "mme":
        return question.replace(MME_SUFFIX, "").rstrip() + SHORT
    if protocol == "llava-native" and kind == "pope":
        return question + SHORT
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


def _interleaved(row: Row, text: str, pictures: tuple[Picture, ...]) -> Ask:
    """Pictures where the text names them, as often as it does; those it does not name are not shown."""
    shown: list[Picture] = []

    def place(match: re.Match[str]) -> str:
        number = int(match.group(1))
        if not 1 <= number <= len(pictures):
            raise DataError(f"{match.group(0)} of {len(pictures)} pictures", where=row.where or None)
        shown.append(pictures[number - 1])
        return IMAGE_MARK

    return Ask(_MARK.sub(place, _plain(text)), tuple(shown))


def _dialogue(row: Row, pictures: tuple[Picture, ...]) -> list[Ask]:
    asks, used = [], 0
    for question in literal_list(row.get("question"), row.where):
        count = question.count(_DIALOGUE_MARK)
        if used + count > len(pictures):
            raise DataError(
                f"more {_DIALOGUE_MARK} marks than pictures ({len(pictures)})", where=row.where or None
            )
        text = _plain(question).replace(_DIALOGUE_MARK, IMAGE_MARK)
        asks.append(Ask(text, pictures[used : used + count]))
        used += count
    return asks


def _plain(text: str) -> str:
    """Text that happens to hold the mark of a picture must not ask for one."""
    return text.replace(IMAGE_MARK, "<image >")


def _pictures(row: Row) -> tuple[Picture, ...]:
    if row.pictures:
        return tuple(Picture(n, data, row.where) for n, data in zip(row.names, row.pictures, strict=True))
    return tuple(Picture(name, where=row.where) for name in row.names)
