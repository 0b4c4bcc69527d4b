"""Profiles: one TOML file that says everything about a model, its data and its training.

Precedence: flags > KORE_* environment > profile file > defaults; `Resolved.origin` records where each
value came from. The settings themselves are in `kore.config.schema`; those that go with a model where no
profile is named, in `kore.config.model_defaults`.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError

from kore.config.schema import AdapterSection as AdapterSection
from kore.config.schema import AugmentSection as AugmentSection
from kore.config.schema import CalibrateSection as CalibrateSection
from kore.config.schema import EvalSection as EvalSection
from kore.config.schema import HttpImages as HttpImages
from kore.config.schema import ModelSection as ModelSection
from kore.config.schema import Profile as Profile
from kore.config.schema import Section as Section
from kore.config.schema import TrainSection as TrainSection
from kore.errors import ProfileError
from kore.io.files import hash_json


@dataclass(frozen=True)
class Layer:
    """Settings from one place.

    Attributes:
        origin: what `Resolved.origin` calls it.
        where: the file, or what else an error message names.
        values: nested tables, unchecked.
    """

    origin: str
    where: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Resolved:
    """A profile with the origin of each value: ``default``, ``model``, ``profile``, ``run``, ``env NAME`` or
    ``flag``.

    Attributes:
        why: how the profile or the rules were chosen; empty for a profile that was named.
        note: a remark on that choice.
    """

    name: str
    profile: Profile
    origin: dict[str, str] = field(default_factory=dict)
    why: str = ""
    note: str = ""

    @property
    def fingerprint(self) -> str:
        """Hash of all values."""
        return hash_json(self.profile.model_dump(mode="json"))

    def changed(self, key: str, value: Any) -> Resolved:
        """The same settings with another value of one key, which the command chose."""
        section, name = key.split(".")
        inner = getattr(self.profile, section).model_copy(update={name: value})
        profile = self.profile.model_copy(update={section: inner})
        return replace(self, profile=profile, origin={**self.origin, key: "command"})

    def values(self) -> dict[str, Any]:
        """Every setting under its dotted key."""
        return dict(_leaves(self.profile.model_dump(mode="json")))


def shipped() -> Path:
    """The folder of the profiles that come with KORE."""
    installed = Path(__file__).parents[1] / "profiles"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "profiles"


def shipped_names() -> list[str]:
    """Names of the profiles that come with KORE."""
    return sorted(p.stem for p in shipped().glob("*.toml"))


def name_of(profile: str) -> str:
    """What a profile given by name or path is called: its own dots stay (``llava-v1.5-7b``)."""
    return Path(profile).name.removesuffix(".toml")


def find(name: str) -> Path:
    """The file of a profile given by name or path.

    Raises:
        ProfileError: no such profile; names the nearest one.
    """
    if name.endswith(".toml") or "/" in name:
        if not Path(name).is_file():
            raise ProfileError(f"no such profile: {name}", hint="kore profiles list shows those that ship")
        return Path(name)
    path = shipped() / f"{name}.toml"
    if not path.is_file():
        raise ProfileError(
            f"no such profile: {name}{_nearest(name, shipped_names(), 0.5)}",
            hint="kore profiles list shows those that ship; a path ends in .toml",
        )
    return path


def resolve(
    name: str = "tiny", flags: dict[str, Any] | None = None, environ: dict[str, str] | None = None
) -> Resolved:
    """Merge defaults, the profile's file, ``KORE_SECTION__KEY`` variables and flags.

    Args:
        name: a shipped profile's name or a path to a TOML file.
        flags: dotted key -> value; None values are flags that were not given. Text values are
            read as TOML where they parse (so ``train.lr=2e-4`` from ``--set`` is a number).

    Raises:
        ProfileError: unknown key (with the nearest one), wrong type, bad TOML; with file and key.
    """
    path = find(name)
    return resolve_layers([Layer("profile", str(path), read(path))], flags, environ, name=name_of(name))


def resolve_layers(
    layers: list[Layer],
    flags: dict[str, Any] | None = None,
    environ: dict[str, str] | None = None,
    *,
    name: str,
) -> Resolved:
    """Merge layers (a later one wins), then variables and flags; see `resolve`."""
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    where: dict[str, str] = {}
    for layer in layers:
        values = _merged(values, layer.values)
        for key, _ in _leaves(layer.values):
            origin[key], where[key] = layer.origin, layer.where
    for variable, text in sorted((os.environ if environ is None else environ).items()):
        if variable.startswith("KORE_") and "__" in variable:
            key = variable.removeprefix("KORE_").lower().replace("__", ".")
            _put(values, key, _literal(key, text), variable)
            origin[key], where[key] = f"env {variable}", variable
    for key, value in (flags or {}).items():
        if value is not None:
            _put(values, key, _literal(key, value) if isinstance(value, str) else value, f"--set {key}")
            origin[key], where[key] = "flag", f"--set {key}"
    try:
        profile = Profile.model_validate(values)
    except ValidationError as error:
        raise _explain(error, where, layers[0].where) from error
    full = {key: origin.get(key, "default") for key, _ in _leaves(profile.model_dump(mode="json"))}
    return Resolved(name, profile, full)


def read(path: Path) -> dict[str, Any]:
    """A profile file's tables, unchecked.

    Raises:
        ProfileError: not TOML, or not to be read; with file and line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ProfileError("not UTF-8 text", where=str(path)) from error
    except tomllib.TOMLDecodeError as error:
        found = re.search(r" \(at line (\d+), column \d+\)$", str(error))
        where = f"{path}:{found[1]}" if found else str(path)
        reason = str(error)[: found.start()] if found else str(error)
        raise ProfileError(f"not TOML: {reason}", where=where) from error
    except OSError as error:
        raise ProfileError(f"cannot read: {error.strerror}", where=str(path)) from error


def _literal(key: str, text: str) -> Any:
    """Text from a flag or the environment as the value that the setting wants.

    Read as TOML where it parses, except that a setting that is text stays text (``model.id=7b``,
    ``calibrate.layers=3``), a list may be written without brackets (``eval.suites=a,b``), and none
    clears a setting that can be without a value.
    """
    wanted = _type_of(key)
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    if value == "none" and NoneType in wanted:
        return None
    if wanted <= {str, NoneType} and wanted and not isinstance(value, str):
        return text
    if list in wanted and not isinstance(value, list):
        return [part.strip() for part in text.split(",") if part.strip()]
    return value


def _type_of(key: str) -> set[Any]:
    """The plain types that a setting takes; empty where there is no such setting."""
    model: Any = Profile
    for part in key.split("."):
        fields = getattr(model, "model_fields", {})
        if part not in fields:
            return set()
        model = fields[part].annotation
    choices = get_args(model) if get_origin(model) in (Union, UnionType) else (model,)
    types: set[Any] = set()
    for choice in choices:
        literal = get_origin(choice) is Literal
        types |= {type(v) for v in get_args(choice)} if literal else {get_origin(choice) or choice}
    return types


def _put(values: dict[str, Any], key: str, value: Any, where: str) -> None:
    *path, last = key.split(".")
    for part in path:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ProfileError(f"unknown setting {key}: {part} is not a section", where=where)
        values = inner
    values[last] = value


def _merged(values: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Nested tables with others over them; neither is changed."""
    merged = dict(values)
    for key, value in over.items():
        below = merged.get(key)
        inner = below if isinstance(below, dict) else {}
        merged[key] = _merged(inner, value) if isinstance(value, dict) else value
    return merged


def _leaves(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            found += _leaves(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found


def _explain(error: ValidationError, where: dict[str, str], path: str) -> ProfileError:
    errors = error.errors(include_url=False)
    first, location = errors[0], [str(part) for part in errors[0]["loc"]]
    key = ".".join(location)
    if first["type"] == "extra_forbidden":
        message = f"unknown setting {key}{_nearest_setting(key)}"
    else:
        key = _setting(location)
        # a setting that takes more than one type fails once for each
        reasons = dict.fromkeys(e["msg"] for e in errors if _setting([str(p) for p in e["loc"]]) == key)
        wanted = " or ".join(_worded(reason) for reason in reasons).replace(" or should be ", " or ")
        message = f"{key}: {wanted} (found {first.get('input')!r})"
    below = (origin for k, origin in where.items() if k.startswith(f"{key}."))
    origin = where.get(key) or next(below, path)
    if Path(origin).is_file():
        origin += _line_of(Path(origin), key)
    return ProfileError(message, where=origin, hint="kore profiles show tiny lists every setting")


def _worded(reason: str) -> str:
    return reason.removeprefix("Input ").partition(", unable to parse")[0].partition(" or instance of")[0]


def _setting(location: list[str]) -> str:
    """The dotted key within an error's location, without the branch of a union that failed."""
    model: Any = Profile
    known = []
    for part in location:
        fields = getattr(model, "model_fields", {})
        if part not in fields:
            break
        known.append(part)
        model = fields[part].annotation
    return ".".join(known) or ".".join(location)


def _line_of(path: Path, key: str) -> str:
    """``:line`` of a key in a TOML file, empty where it is not found (an inline table, say)."""
    *section, last = key.split(".")
    header: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if found := re.match(r"\s*\[([\w.\-\s]+)\]", line):
            header = [part.strip() for part in found[1].split(".")]
            if header == [*section, last]:
                return f":{number}"
        elif (found := re.match(r"\s*([\w\-]+)\s*=", line)) and [*header, found[1]] == [*section, last]:
            return f":{number}"
    return ""


def all_keys() -> list[str]:
    """Every setting's dotted key."""
    return [key for key, _ in _leaves(Profile().model_dump(mode="json"))]


def _nearest_setting(key: str) -> str:
    """A guess within the key's own section; for a bare name, the setting or section of that name."""
    section, _, _ = key.rpartition(".")
    keys = all_keys()
    if section:
        return _nearest(key, [k for k in keys if k.startswith(f"{section}.")])
    same = [k for k in keys if k.endswith(f".{key}")]
    return f" (did you mean {same[0]}?)" if same else _nearest(key, sorted({k.split(".")[0] for k in keys}))


def _nearest(name: str, known: list[str], cutoff: float = 0.65) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return f" (did you mean {close[0]}?)" if close else ""
