"""Read a study plan and check it before anything is trained; errors name the nearest valid word."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from kore.config.resolve import AugmentSection, name_of, resolve
from kore.errors import MissingArtefact, ProfileError
from kore.studies.method_study.plan import (
    BASE,
    RAG,
    RAW,
    SMALL,
    THAWED,
    UNAUGMENTED,
    UNCONSTRAINED,
    StudyPlan,
)


def read_plan(path: Path | None, changes: Mapping[str, Any]) -> StudyPlan:
    """A plan file (or the small default) with `changes` over it; None values change nothing.

    Raises:
        ProfileError: not TOML, an unknown key, a value that cannot be.
    """
    values: dict[str, Any] = dict(SMALL)
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ProfileError(f"not a readable plan: {error}", where=str(path)) from error
    values.update({k: v for k, v in changes.items() if v is not None})
    try:
        plan = StudyPlan.model_validate(values)
    except ValidationError as error:
        raise explain(error, str(path or "plan")) from error
    named = changes.get("parts") is not None and not changes.get("ranks")
    if plan.ranks and "ranks" not in plan.parts and not named:  # ranks ask for their table
        plan = plan.model_copy(update={"parts": [*plan.parts, "ranks"]})
    check(plan)
    return plan


def check(plan: StudyPlan) -> None:
    """What can be told without reading data.

    Raises:
        ProfileError: a name that does not exist, with the nearest one; settings that do not go together.
    """
    from kore.methods.registry import METHODS

    strategies = list(get_args(AugmentSection.model_fields["strategy"].annotation))
    trained = [*METHODS, RAW]
    ablations = [UNAUGMENTED, UNCONSTRAINED, THAWED]
    _known(plan.methods, [*trained, RAG, BASE], "methods", "method")
    _known(plan.strategies, strategies, "strategies", "strategy")
    _known(plan.seeds_of, trained, "seeds_of", "method")
    _known(plan.rates, [*trained, *ablations, *(f"lora, {s}" for s in strategies)], "rates", "row")
    for key in ("methods", "parts", "ranks", "strategies", "suites"):
        _once(getattr(plan, key), key)
    if "ranks" in plan.parts and not plan.ranks:
        raise ProfileError("part ranks needs ranks", where="parts", hint="such as ranks = [10, 20, 40]")
    if not plan.suites:
        raise ProfileError("names no suite, so nothing tells what is kept", where="suites")
    _profiles(plan)


def _profiles(plan: StudyPlan) -> None:
    if plan.models and "model.id" in plan.settings:
        raise ProfileError(
            "model.id would make all models one", where="settings", hint="name it in a profile"
        )
    named = [plan.profile, *plan.models]
    _once([name_of(p) for p in named], "models")
    for profile in named:
        resolve(profile, dict(plan.settings))


def check_data(plan: StudyPlan) -> None:
    """That the files of a plan are there, and that its suites can be read.

    Raises:
        KoreError: what is missing, or an unknown suite with the nearest one.
    """
    from kore.evaluation.suite_options import SuiteOptions
    from kore.evaluation.suites import resolve_suites

    for key, name in (("items", plan.items), ("old", plan.old), ("notes", plan.notes_file)):
        if name is not None and not Path(name).is_file():
            raise MissingArtefact(f"no such file: {name}", where=key)
    resolve_suites(plan.suites, SuiteOptions())


def explain(error: ValidationError, where: str) -> ProfileError:
    """A plan's first wrong value in one line."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        near = _nearest(key, list(StudyPlan.model_fields))
        return ProfileError(f"no such key: {key}{near}", where=where)
    reason = first["msg"].removeprefix("Input ")
    return ProfileError(f"{key}: {reason} (found {first['input']!r})", where=where)


def _known(names: Iterable[str], known: Sequence[str], where: str, what: str) -> None:
    for name in names:
        if name not in known:
            near = _nearest(name, known)
            raise ProfileError(f"no such {what}: {name}{near}", where=where, hint=", ".join(known))


def _once(names: Sequence[object], where: str) -> None:
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice is not None:
        raise ProfileError(f"{twice} is named twice", where=where)


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
