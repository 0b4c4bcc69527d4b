"""Keyword arguments as checked settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from kore.config.model_defaults import resolve_training
from kore.config.resolve import Resolved
from kore.config.schema import Section
from kore.errors import UsageError

S = TypeVar("S", bound=Section)


def section(kind: type[S], **values: object) -> S:
    """A section of the settings from keyword arguments; None stands for the default.

    Raises:
        UsageError: every argument that is not valid, and why.
    """
    given = {name: value for name, value in values.items() if value is not None}
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        wrong = {".".join(map(str, e["loc"][:1])): e["msg"] for e in error.errors(include_url=False)}
        raise UsageError(
            "; ".join(f"{name}={given.get(name)!r}: {text}" for name, text in wrong.items())
        ) from (error)


def resolved(
    profile: str, settings: Mapping[str, Any] | None, after: Path | None = None, **flags: object
) -> Resolved:
    """Settings (dotted keys) and named arguments over the profile, else over the defaults of the model.

    Args:
        flags: dotted keys with ``__`` for the dot; None stands for the profile's value. `settings` win.

    Raises:
        ProfileError: no such profile or setting, or a value of the wrong type.
    """
    named = {key.replace("__", "."): value for key, value in flags.items() if value is not None}
    return resolve_training(profile, {**named, **(settings or {})}, after=after)
