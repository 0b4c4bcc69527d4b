"""Command-line options generated from the settings' schema: type, default and help are written once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from kore.config.schema import Profile
from kore_cli.options import names as split
from kore_cli.options import overrides

PANELS = {
    "model": "Model",
    "augment": "Augmentation",
    "calibrate": "Old samples and covariance",
    "adapter": "Adapter",
    "train": "Training",
    "eval": "Evaluation",
}
WIDEST = 24
FOLLOW_MODEL = ("model.id", "adapter.rank", "train.lr", "train.epochs", "calibrate.samples")
SET = typer.Option("--set", metavar="KEY=VALUE", help="Override any setting, e.g. train.lr=2e-4.")


def with_settings(*settings: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add an option for each setting, and ``--set``; the command gets those given as `settings`.

    Args:
        settings: dotted settings, e.g. ``train.lr``, which becomes ``--lr``; or with the option's own names,
            ``train.method=--method -m``.
    """
    names: dict[str, tuple[str, ...]] = {}
    for text in settings:
        key, _, flags = text.partition("=")
        names[key] = tuple(flags.split()) or (f"--{key.rpartition('.')[2].replace('_', '-')}",)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        parameters = {f"s_{key.replace('.', '_')}": key for key in names}

        @functools.wraps(command)
        def run(**values: Any) -> None:
            given: dict[str, Any] = {}
            for parameter, key in parameters.items():
                value = values.pop(parameter)
                if value is not None:
                    given[key] = split(value) if isinstance(value, list) else value
                    if _is_switch(key):
                        given[key] = not _default(key)
            given |= overrides(values.pop("s_set"))
            command(**values, settings=given)

        signature = inspect.signature(command, eval_str=True)
        own = [p for name, p in signature.parameters.items() if name != "settings"]
        added = [
            _parameter(parameter, _option_type(key), _option(key, names[key]))
            for parameter, key in parameters.items()
        ]
        added.append(_parameter("s_set", list[str], SET))
        run.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in [*own, *added]}
        return run

    return decorate


def _parameter(name: str, kind: Any, option: Any) -> inspect.Parameter:
    annotation = Annotated[kind | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def field(key: str) -> tuple[Any, Any, str]:
    """Type, default and description of a setting.

    Raises:
        KeyError: there is no such setting.
    """
    section, name = key.split(".")
    model: Any = type(getattr(Profile(), section))
    info = model.model_fields[name]
    return info.annotation, info.get_default(call_default_factory=True), info.description or ""


def _default(key: str) -> Any:
    return field(key)[1]


def _plain_types(annotation: Any) -> Iterator[Any]:
    """The types that a setting takes, without None and without constraints."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        for part in get_args(annotation):
            yield from _plain_types(part)
    elif origin is Annotated:
        yield from _plain_types(get_args(annotation)[0])
    elif annotation is not NoneType:
        yield annotation


def _is_switch(key: str) -> bool:
    return list(_plain_types(field(key)[0])) == [bool]


def _option_type(key: str) -> Any:
    """What Typer parses; a setting with several types is text, which the schema reads."""
    types = list(_plain_types(field(key)[0]))
    if types == [bool]:
        return bool
    if len(types) == 1 and get_origin(types[0]) is list:
        return list[str]
    return types[0] if len(types) == 1 and types[0] in (int, float) else str


def _metavar(key: str) -> str | None:
    types = list(_plain_types(field(key)[0]))
    words = []
    for kind in types:
        if get_origin(kind) is Literal:
            words += [str(word) for word in get_args(kind)]
        elif get_origin(kind) is list:
            words.append("a,b,c")
        else:
            words.append({int: "N", float: "X"}.get(kind, "TEXT"))
    return None if types == [bool] else "|".join(words)


def _choices(key: str) -> str:
    """The values of a setting with named choices, where they are too many for the first column."""
    words = _metavar(key) or ""
    return f" One of {words.replace('|', ', ')}." if len(words) > WIDEST else ""


def _option(key: str, flags: tuple[str, ...]) -> Any:
    _, default, description = field(key)
    section = key.partition(".")[0]
    shown = ""
    if key in FOLLOW_MODEL:
        default = "by model"
    if default is not None and default not in ([], "none") and not isinstance(default, bool):
        shown = f"{default:g}" if isinstance(default, float) else str(default)
        if isinstance(default, list):
            shown = ",".join(map(str, default))
    return typer.Option(
        *flags,
        help=" ".join(description.split()) + _choices(key) + (f" [default: {shown}]" if shown else ""),
        metavar="NAME" if _choices(key) else _metavar(key),
        rich_help_panel=PANELS[section],
    )
