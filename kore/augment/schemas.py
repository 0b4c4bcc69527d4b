"""What a teacher is asked to reply with, as pydantic models: the schema that is sent and checked."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class ReplyForm(BaseModel):
    """A structured reply."""

    model_config = ConfigDict(extra="ignore")
    LOCAL: ClassVar[frozenset[str]] = frozenset({"key", "keys"})
    """Fields that only the offline teacher fills in (which template made a question); never in a schema."""


class Questions(ReplyForm):
    """First call of the trunk."""

    questions: list[str]
    keys: list[str] = []


class Answers(ReplyForm):
    """Second call of the trunk: one answer per question, in order; an empty one means the text has none."""

    answers: list[str]


class Answer(ReplyForm):
    """One answer (the paper's call per answer)."""

    answer: str


class Summary(ReplyForm):
    """A summary of at most 25 words."""

    summary: str


class Quadruplet(ReplyForm):
    """A visual question: it names the subject that the picture will show (paper, 4.2.1 step 5).

    ``rephrased`` asks the same in other words and is kept for evaluation.
    """

    question: str
    rephrased: str = ""
    answer: str
    subject: str
    hypernym: str
    key: str | None = None


class Quadruplets(ReplyForm):
    """All visual questions of one text."""

    quadruplets: list[Quadruplet]


class Hop(ReplyForm):
    """A question that needs two texts."""

    question: str
    rephrased: str = ""
    answer: str


class Hops(ReplyForm):
    """Questions across two items."""

    hops: list[Hop]


class Verdict(ReplyForm):
    """Whether the text supports an answer."""

    supported: bool
    reason: str = ""


class Rephrasings(ReplyForm):
    """A text in other words, several times (plain augmentation)."""

    texts: list[str]


@functools.cache
def schema_of(form: type[ReplyForm]) -> dict[str, object]:
    """A JSON schema in the strict dialect of structured outputs: every field required, nothing else
    allowed."""
    schema = form.model_json_schema()
    definitions = schema.pop("$defs", {})
    resolved = _strict(schema, definitions)
    assert isinstance(resolved, dict)
    return resolved


def _strict(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_strict(n, definitions) for n in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _strict(definitions[str(node["$ref"]).rsplit("/", 1)[-1]], definitions)
    out = {
        k: _strict(v, definitions) for k, v in node.items() if k not in ("title", "default", "description")
    }
    if "properties" in node:
        out["properties"] = {
            k: _strict(v, definitions) for k, v in node["properties"].items() if k not in ReplyForm.LOCAL
        }
        out["required"] = list(out["properties"])
        out["additionalProperties"] = False
    return out
