"""Profiles: one TOML file that says everything about a model, its data and its training.

Precedence: flags > KORE_* environment > profile file > defaults; `Resolved.origin` knows where each
value came from. The settings themselves are in `kore.settings`.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kore.errors import ProfileError
from kore.files import hash_json
from kore.settings import AdapterSection as AdapterSection
from kore.settings import AugmentSection as AugmentSection
from kore.settings import CalibrateSection as CalibrateSection
from kore.settings import EvalSection as EvalSection
from kore.settings import HttpImages as HttpImages
from kore.settings import ModelSection as ModelSection
from kore.settings import Profile as Profile
from kore.settings import Section as Section
from kore.settings import TrainSection as TrainSection


@dataclass(frozen=True)
class Resolved:
    """A profile with the origin of each value: ``default``, ``profile``, ``env NAME`` or ``flag``."""

    name: str
    profile: Profile
    origin: dict[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Hash of all values."""
        return hash_json(self.profile.model_dump(mode="json"))

    def values(self) -> dict[str, Any]:
        """Every setting under its dotted key."""
        return dict(_leaves(self.profile.model_dump(mode="json")))


def shipped() -> Path:
    """The folder of the profiles that come with KORE."""
    installed = Path(__file__).parent / "profiles"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "profiles"


def shipped_names() -> list[str]:
    """Names of the profiles that come with KORE."""
    return sorted(p.stem for p in shipped().glob("*.toml"))


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
            f"no such profile: {name}{_nearest(name, shipped_names())}",
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
    values = _read(path)
    origin = dict.fromkeys((key for key, _ in _leaves(values)), "profile")
    where = dict.fromkeys(origin, str(path))
    for variable, text in sorted((os.environ if environ is None else environ).items()):
        if variable.startswith("KORE_") and "__" in variable:
            key = variable.removeprefix("KORE_").lower().replace("__", ".")
            _put(values, key, _literal(text))
            origin[key], where[key] = f"env {variable}", variable
    for key, value in (flags or {}).items():
        if value is not None:
            _put(values, key, _literal(value) if isinstance(value, str) else value)
            origin[key], where[key] = "flag", f"--set {key}"
    try:
        profile = Profile.model_validate(values)
    except ValidationError as error:
        raise _explain(error, where, str(path)) from error
    full = {key: origin.get(key, "default") for key, _ in _leaves(profile.model_dump(mode="json"))}
    return Resolved(Path(name).stem, profile, full)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProfileError(f"not TOML: {error}", where=str(path)) from error
    except OSError as error:
        raise ProfileError(f"cannot read: {error.strerror}", where=str(path)) from error


def _literal(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ProfileError(f"{part} is not a section", where=key)
        values = inner
    values[last] = value


def _leaves(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            found += _leaves(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found


def _explain(error: ValidationError, where: dict[str, str], path: str) -> ProfileError:
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    known = [p for p in location if p in all_keys_parts()]
    key = ".".join(location)
    if first["type"] == "extra_forbidden":
        message = f"unknown setting {key}{_nearest(key, all_keys())}"
    else:
        key = ".".join(known) or key
        message = f"{key}: {first['msg']} (found {first.get('input')!r})"
    return ProfileError(message, where=where.get(key, path), hint="kore profiles show lists every setting")


def all_keys() -> list[str]:
    """Every setting's dotted key."""
    return [key for key, _ in _leaves(Profile().model_dump(mode="json"))]


def all_keys_parts() -> set[str]:
    """Every name that occurs in a dotted key."""
    return {part for key in all_keys() for part in key.split(".")}


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""
