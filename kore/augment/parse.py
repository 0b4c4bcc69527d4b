"""A reply's text as its form: strictly if it can be, else by looking for the JSON in it."""

from __future__ import annotations

import json
import re
from typing import TypeVar

from pydantic import ValidationError

from kore.augment.schemas import ReplyForm
from kore.llm.request import Unusable

F = TypeVar("F", bound=ReplyForm)
_FENCE = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL)
_THINKING = re.compile(r"<think>.*?</think>", re.DOTALL)


def parse(text: str, form: type[F]) -> F:
    """Read a reply.

    Takes code fences, a model's thinking, words around the JSON, a bare list for a form with one list and
    trailing commas in stride. A reply that breaks off is never taken in part.

    Raises:
        Unusable: with what is wrong, in words that can be sent back.
    """
    text = _THINKING.sub("", text).strip().removeprefix("\ufeff")
    trouble = "the reply is empty"
    for candidate in _candidates(text):
        try:
            value = json.loads(candidate, strict=False)
        except (ValueError, RecursionError) as error:
            trouble = f"not JSON: {error}"
            continue
        try:
            return form.model_validate(_wrapped(value, form))
        except ValidationError as error:
            first = error.errors()[0]
            trouble = f"{'.'.join(map(str, first['loc'])) or 'reply'}: {first['msg']}"
    raise Unusable(trouble)


def _candidates(text: str) -> list[str]:
    found = [text, *(m.strip() for m in _FENCE.findall(text))]
    starts = {opening: text.find(opening) for opening in "{["}
    # whichever opens first is the reply; a list inside an object is only a part of it
    opening = min((o for o in starts if starts[o] >= 0), key=lambda o: starts[o], default="{")
    start, end = starts[opening], text.rfind("}" if opening == "{" else "]")
    if 0 <= start < end:
        found.append(text[start : end + 1])
    # a comma before a closing bracket, outside strings, is the commonest slip
    found += [re.sub(r",(\s*[}\]])", r"\1", c) for c in found[:]]
    return [c for c in dict.fromkeys(found) if c]


def _wrapped(value: object, form: type[ReplyForm]) -> object:
    """A bare list stands for the form's only field."""
    fields = [name for name in form.model_fields if name not in form.LOCAL]
    if isinstance(value, list) and len(fields) == 1:
        return {fields[0]: value}
    return value
