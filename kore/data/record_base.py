"""What every record has in common: fields that are checked, and unknown keys that are kept."""

from __future__ import annotations

import difflib
from typing import Any, ClassVar, Literal, Self, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from kore.errors import DataError


class Record(BaseModel):
    """A JSON object with known fields; what is not known is kept under ``extra``."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    extra: dict[str, Any] = Field(default_factory=dict)

    read_keys: ClassVar[tuple[str, ...]] = ()
    """Keys that are read though they are not fields; empty where unread keys are not reported."""

    @model_validator(mode="before")
    @classmethod
    def _keep_unknown(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        known = cls.model_fields.keys()
        unknown = {k: v for k, v in value.items() if k not in known}
        if not unknown:
            return value
        kept = {k: v for k, v in value.items() if k in known}
        given = kept.get("extra")
        kept["extra"] = {**(given if isinstance(given, dict) else {}), **unknown}
        return kept

    @model_serializer(mode="wrap")
    def _spread_extra(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        value: dict[str, Any] = plain(self)
        extra = value.pop("extra", {})
        return {**value, **{k: v for k, v in extra.items() if k not in value}}

    def to_json(self) -> dict[str, Any]:
        """The record as a plain object: unset optional fields left out, ``extra`` spread back."""
        return self.model_dump(mode="json", exclude_none=True, by_alias=True)

    @classmethod
    def from_json(cls, value: dict[str, Any], where: str = "") -> Self:
        """Validate one object.

        Raises:
            DataError: naming the field and, with `where`, the file and line.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise DataError(cls._fault(error, value), where=where or None) from error

    @classmethod
    def _fault(cls, error: ValidationError, value: dict[str, Any]) -> str:
        """The first fault in words, and how many other fields have one."""
        reasons: dict[str, list[str]] = {}
        for one in error.errors(include_url=False):
            key = _path(one["loc"])
            if one["type"] == "missing":
                near = difflib.get_close_matches(key, value.keys() - cls.model_fields.keys(), n=1, cutoff=0.7)
                reason = f"is missing{cls._choices(one['loc'])}" + (f" (found {near[0]})" if near else "")
            else:
                reason = one["msg"].removeprefix("Value error, ")
            reasons.setdefault(key, []).append(reason)
        key, first = next(iter(reasons.items()))
        text = " or ".join([first[0], *(r.removeprefix("Input should be ") for r in first[1:])])
        text = f"{key} {text}" if text.startswith("is missing") else f"{key}: {text}" if key else text
        others = [key for key in reasons][1:]
        return text + (f" (also at fault: {', '.join(others[:5])})" if others else "")

    @classmethod
    def _choices(cls, place: tuple[int | str, ...]) -> str:
        """What may stand in a field that takes one of some words."""
        known = cls.model_fields.get(str(place[0])) if len(place) == 1 else None
        words = get_args(known.annotation) if known and get_origin(known.annotation) is Literal else ()
        return f": one of {', '.join(map(str, words))}" if words else ""


_UNION = ("str", "list[str]")


def _path(place: tuple[int | str, ...]) -> str:
    """A fault's place in the record, without the union members that pydantic adds to it."""
    parts = list(place)
    for tag in reversed([n for n, part in enumerate(parts) if n and part in _UNION]):
        del parts[tag]
        break
    return ".".join(map(str, parts))


def as_list(value: str | list[str] | None) -> list[str]:
    """Pictures or answers as a list; an empty text means none, as published data sets have it."""
    if not value:
        return []
    return [value] if isinstance(value, str) else list(value)


def as_text(value: Any) -> Any:
    """Numbers that stand where a name or a fact's value does, as text."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return [as_text(inner) for inner in value] if isinstance(value, list) else value
