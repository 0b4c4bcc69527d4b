"""Wordings of questions and answers, from TOML, drawn by a seed from the item's id.

The shipped files are ``data/templates.toml`` and its translations ``data/templates.zh.toml``, ...; a file of
your own replaces any of their lists: ``[entity.caption]`` in every language, ``[zh.entity.caption]`` in one.
A wording is filled by plain replacement of ``{title}`` and the like,
so braces elsewhere in a text do no harm.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kore.augment.text import fold
from kore.data.records import KnowledgeItem
from kore.errors import DataError

DATA = Path(__file__).parent / "data"
_PLACE = re.compile(r"\{(\w+)\}")
LANGUAGES = ("en", "zh", "ar")
PLACES = frozenset(["title", "type", "name", "summary", "s", "k", "v", "x", "h", "other"])


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Pair(_Table):
    """Questions with the answers that may follow them (recognition has fixed answers)."""

    questions: list[str] = Field(min_length=1)
    answers: list[str] = []
    held_out: list[str] = []


class KindTemplates(_Table):
    """The three template tasks of one kind of item."""

    heuristic: Pair
    recognition: Pair
    caption: Pair
    hypernym: str = "{type}"
    """What kind of thing the picture shows: the type of an entity, news of a type."""


class Tier(_Table):
    """Wordings of one question: for training, for a later turn of a dialogue, for evaluation."""

    train: list[str] = Field(min_length=1)
    follow_up: list[str] = []
    held_out: list[str] = []
    spoken: str = "this {h}"
    statement: str = "The {k} of {s} is {v}."
    aliases: list[str] = []


class Instructions(_Table):
    """The requests that end a question, and the words for yes and no."""

    short: list[str] = Field(min_length=1)
    yes_no: list[str] = Field(min_length=1)
    paragraph: list[str] = Field(min_length=1)
    yes: str = "Yes"
    no: str = "No"


class Templates(_Table):
    """One language's wordings."""

    version: int = 1
    instructions: Instructions
    subjects: Tier
    news: KindTemplates
    entity: KindTemplates
    facts: dict[str, Tier]
    patterns: dict[str, Tier]
    hop: Tier

    def kind(self, item: KnowledgeItem) -> KindTemplates:
        """The template tasks for an item."""
        return self.news if item.kind == "news" else self.entity

    def hypernym(self, item: KnowledgeItem) -> str:
        """What kind of thing the item's picture shows."""
        return fill(self.kind(item).hypernym, type=item.type)

    def spoken(self, item: KnowledgeItem) -> str:
        """How a later turn of the dialogue speaks of the item: by name, or 'this politics news'."""
        if item.kind == "entity":
            return item.title
        return fill(self.subjects.spoken, h=self.hypernym(item)) if item.images else f'"{item.title}"'

    def fact(self, key: str) -> Tier:
        """The wordings for a fact's key, by name or alias, else the default's."""
        folded = fold(key.replace("_", " "))
        for name, tier in self.facts.items():
            if folded == name or folded in tier.aliases:
                return tier
        return self.facts["default"]

    def check(self, where: str) -> None:
        """Refuse a wording that serves both training and evaluation.

        Raises:
            DataError: naming it; also for a place in braces that nothing fills.
        """
        for text in _texts(self.model_dump()):
            if unknown := places(text) - PLACES:
                raise DataError(f"nothing fills {{{unknown.pop()}}} in {text!r}", where=where)
        tiers = [self.subjects, self.hop, *self.facts.values(), *self.patterns.values()]
        for tier in tiers:
            both = {fold(t) for t in (*tier.train, *tier.follow_up)} & {fold(t) for t in tier.held_out}
            if both:
                raise DataError(f"a wording is both for training and held out: {both.pop()!r}", where=where)


def load_templates(own: Path | None = None) -> dict[str, Templates]:
    """The wordings of each language, with the tables of `own` (a TOML file) in place of the shipped ones.

    Raises:
        DataError: unreadable, an unknown table, or a wording in both tiers; names file and key.
    """
    loaded = {}
    replacing = read_toml(own) if own else {}
    replacing.pop("prompts", None)
    by_language = {name: replacing.pop(name, {}) for name in LANGUAGES}
    for name in LANGUAGES:
        path = DATA / ("templates.toml" if name == "en" else f"templates.{name}.toml")
        values = merge(merge(read_toml(path), replacing), by_language[name])
        where = str(own or path)
        try:
            loaded[name] = Templates.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise DataError(f"{key}: {first['msg']}", where=where) from error
        loaded[name].check(where)
    return loaded


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file's tables.

    Raises:
        DataError: not there, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"not TOML: {error}", where=str(path)) from error
    except OSError as error:
        raise DataError(f"cannot read: {error.strerror}", where=str(path)) from error


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with what `over` holds in its place, table by table."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return merged


def places(template: str) -> set[str]:
    """The names in braces that `fill` would look for."""
    return set(_PLACE.findall(template))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def fill(template: str, **values: str) -> str:
    """Replace ``{name}`` by its value, for each name given, in one pass: braces in a value stay as they
    are."""
    return _PLACE.sub(lambda m: values.get(m.group(1), m.group()), template)


def draw(options: list[str], seed: int, *what: object, turn: int = 0) -> str:
    """One of `options`, the same for the same seed and purpose; `turn` goes on to the next ones."""
    start = random.Random(f"{seed}:{':'.join(str(w) for w in what)}").randrange(len(options))
    return options[(start + turn) % len(options)]
