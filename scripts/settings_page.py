"""The text of docs/settings.md, from the settings' own descriptions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from kore.config.schema import Profile
from kore.methods.registry import METHODS, method_class

HEAD = """# Settings

This page is written by `scripts/write_docs.py` from `kore/settings.py` and the methods; a test
checks that it is current.

A profile is a TOML file with these tables (`kore profiles copy NAME mine.toml` makes one of your own). Any
setting can be given to a command as `--set SECTION.KEY=VALUE`, or in the environment as `KORE_SECTION__KEY`;
`kore profiles show NAME` tells each value and where it comes from.
"""


def tables(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[str]:
    """A table of a section's settings, then those of the sections in it."""
    rows, inner = [], []
    for name, field in model.model_fields.items():
        section = next((t for t in _types(field) if isinstance(t, type) and issubclass(t, BaseModel)), None)
        if section is not None:
            inner.append((section, (*path, name)))
        else:
            rows.append(f"| `{name}` | {_default(field)} | {_cell(field.description or '')} |")
    if rows:
        yield "\n".join(
            [f"## [{'.'.join(path)}]\n", "| setting | default | meaning |", "|---|---|---|", *rows]
        )
    for section, place in inner:
        yield from tables(section, place)


def _types(field: FieldInfo) -> tuple[Any, ...]:
    return (field.annotation, *get_args(field.annotation))


def _default(field: FieldInfo) -> str:
    value: Any = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    return "-" if value in (None, "", [], {}) else f"`{json.dumps(value)}`"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", r"\|").split())


def settings_page() -> str:
    """The whole text of docs/settings.md."""
    parts = [HEAD]
    for name, field in Profile.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            parts += tables(field.annotation, (name,))
    for name in METHODS:
        parts += tables(method_class(name).Settings, ("method", name))
    return "\n\n".join(part.strip() for part in parts) + "\n"
