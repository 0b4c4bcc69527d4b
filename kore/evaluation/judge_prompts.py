"""What judges are asked, in KORE's own words; the replies keep the grammar that the scorers read.

Scores are comparable only between results judged by the same judge with the same prompts; both are
part of every result.
"""

from __future__ import annotations

import string
import tomllib
from dataclasses import dataclass
from pathlib import Path

from kore.errors import DataError
from kore.io.files import hash_json

OPTION = """\
A model was asked a multiple-choice question. Tell which option its answer means.
Reply with the letter of that option alone. If the answer means none of them, reply Z.

Question: {question}
{options}
Answer given: {prediction}
Letter:"""

YES_NO = """\
A model was asked a question that is answered by yes or no. Tell which of the two its answer means.
Reply with one word: Yes, No, or Unknown if it means neither.

Question: {question}
Answer given: {prediction}
Word:"""

EXTRACT = """\
A model answered a mathematics question at length. Copy out its final answer and nothing else: a letter
for multiple choice, else the number, list or expression, in the form that the question asks for. Do not
solve the question yourself, and do not correct the answer.

Question: {question}
Answer given: {prediction}
Final answer:"""

INSTRUCTION = """\
Rate strictly how well a response follows an instruction about the picture.

Instruction: {question}
Response: {prediction}

Parts of the instruction and the points each is worth:
{components}

Give each part a whole number of points, then the total out of 10, in exactly this form, one sentence
ended by a full stop: {grammar}."""

DIALOGUE = """\
Compare a model's answer in a conversation about pictures with a reference answer to the same question.
Rate it from 1 (poor) to 10 (as good as the reference or better) in whole numbers, on: Creativity,
Richness, Visual Perception, Logical Coherence, Answer Accuracy, Image Relationship Understanding, and
Overall Score.

Question: {question}
Reference answer: {reference}
Model's answer: {prediction}

Reply with one line of this form, numbers filled in:
{grammar}"""


@dataclass(frozen=True)
class JudgePrompts:
    """One template per kind of judgement; each a `str.format` template over named fields."""

    option: str = OPTION
    yes_no: str = YES_NO
    extract: str = EXTRACT
    instruction: str = INSTRUCTION
    dialogue: str = DIALOGUE
    own: bool = True

    @property
    def digest(self) -> str:
        """Hash of all wordings: results judged with different ones are not comparable."""
        return hash_json([self.option, self.yes_no, self.extract, self.instruction, self.dialogue])

    def fill(self, kind: str, **fields: str) -> str:
        """The prompt of a kind with its fields put in; braces in the fields stay as they are."""
        template: str = getattr(self, kind)
        return template.format(**fields)


FIELDS = {
    "option": {"question", "options", "prediction"},
    "yes_no": {"question", "prediction"},
    "extract": {"question", "prediction"},
    "instruction": {"question", "prediction", "components", "grammar"},
    "dialogue": {"question", "reference", "prediction", "grammar"},
}


def load_prompts(path: Path | None = None) -> JudgePrompts:
    """KORE's prompts, with those of a TOML file over them.

    Raises:
        DataError: not TOML, an unknown kind, not a text, or a field that this kind does not have.
    """
    if path is None:
        return JudgePrompts()
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise DataError(f"not a TOML file of judge prompts: {error}", where=str(path)) from error
    for kind, template in values.items():
        if kind not in FIELDS or not isinstance(template, str):
            raise DataError(f"{kind}: judge prompts are texts named {', '.join(FIELDS)}", where=str(path))
        if not _named(template) <= FIELDS[kind]:
            fields = ", ".join(sorted(f"{{{f}}}" for f in FIELDS[kind]))
            raise DataError(
                f"{kind}: knows the fields {fields}", where=str(path), hint="write other braces twice"
            )
    return JudgePrompts(**values, own=False)


def _named(template: str) -> set[str]:
    try:
        return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError:
        return {"unbalanced braces"}
