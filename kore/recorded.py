"""The settings with which a model is asked: those that were named, else the ones that go with it."""

from __future__ import annotations

import os
from typing import Any

from kore.artifacts.run import Run, run_named
from kore.config.resolve import Resolved, find, read, resolve, shipped_names
from kore.config.schema import EvalSection, ModelSection
from kore.errors import MissingArtefact

LONGEST = "KORE_EVAL__MAX_NEW_TOKENS"


def resolve_for(target: str, profile: str = "", flags: dict[str, Any] | None = None) -> Resolved:
    """The named profile, else what belongs to the target, with the flags over it.

    A run brings its own settings of model and evaluation; a model, and an adapter of it, the shipped
    profile that is for it. All else gets tiny's, but for its short answers.

    Args:
        target: a run (by path, or by name under the runs folder), an adapter or a model.

    Raises:
        ProfileError: no such profile, or a bad setting.
    """
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    if profile:
        return resolve(profile, given)
    run = run_named(target)
    if run is not None:
        return resolve("tiny", recorded(run) | given)
    model = _model(target)
    if named := next((name for name in shipped_names() if _model_of(name) == model), None):
        return resolve(named, given)
    longest = {} if LONGEST in os.environ else {"eval.max_new_tokens": EvalSection().max_new_tokens}
    return resolve("tiny", longest | given)


def recorded(run: Run) -> dict[str, Any]:
    """Its settings of model and evaluation, under dotted keys, less those that the environment sets."""
    sections = run.state().profile or {}
    return {
        f"{name}.{key}": value
        for name in ("model", "eval")
        for key, value in (sections.get(name) or {}).items()
        if value is not None and f"KORE_{name}__{key}".upper() not in os.environ
    }


def _model(target: str) -> str:
    """The base of an adapter or of what else was named."""
    from kore.evaluation.target import find_target, hub_id
    from kore.models.load import EMBEDDED, embedded_base

    try:
        model = find_target(target, ModelSection()).model
    except MissingArtefact:
        return target  # whoever loads it says what is missing
    return EMBEDDED if model == str(embedded_base()) else hub_id(model) or model


def _model_of(profile: str) -> str | None:
    """The model that a shipped profile is for; None where it is for any."""
    model: str | None = read(find(profile)).get("model", {}).get("id")
    return model
