"""What teachers are told: shipped in ``data/prompts.toml``, replaced by the ``[prompts.TASK]`` tables of a
templates file of your own."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kore.augment.templates import DATA, merge, places, read_toml
from kore.errors import DataError

_ITEM = {"text", "title", "type", "kind"}
PLACES = frozenset(_ITEM | {"count", "questions", "question", "answer", "other_title", "other_text", "link"})


class Prompt(BaseModel):
    """Wordings of one task's prompt; one of each is drawn per item."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    system: list[str] = Field(min_length=1)
    user: list[str] = Field(min_length=1)


def load_prompts(own: Path | None = None) -> Mapping[str, Prompt]:
    """Task -> prompt, with the tables of `own` in place of the shipped ones.

    Raises:
        DataError: unreadable, an unknown task or place, or a prompt that leaves the text out; names the key.
    """
    return _load(read_toml(own).get("prompts", {}), str(own)) if own else _shipped()


@functools.cache
def _shipped() -> Mapping[str, Prompt]:
    return _load({}, "")


def _load(replacing: dict[str, Any], where: str) -> Mapping[str, Prompt]:
    shipped = {k: v for k, v in read_toml(DATA / "prompts.toml").items() if isinstance(v, dict)}
    if unknown := set(replacing) - set(shipped):
        raise DataError(f"prompts.{unknown.pop()}: there are {', '.join(sorted(shipped))}", where=where)
    loaded = {}
    for task, value in merge(shipped, replacing).items():
        try:
            loaded[task] = Prompt.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(["prompts", task, *(str(part) for part in first["loc"])])
            raise DataError(f"{key}: {first['msg']}", where=where) from error
        for wording in loaded[task].user:
            if strange := places(wording) - PLACES:
                raise DataError(f"prompts.{task}.user: unknown place {{{strange.pop()}}}", where=where)
            if "text" not in places(wording):
                raise DataError(f"prompts.{task}.user: the item's {{text}} is left out", where=where)
    return loaded
