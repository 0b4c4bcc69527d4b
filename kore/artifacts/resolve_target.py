"""Resolve what a name means: a run, an adapter folder, or a model. No torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kore.artifacts.model_folder import CONFIG, EMBEDDED, hub_id
from kore.artifacts.run import ADAPTER, FACTS, Run, locate, only_run
from kore.errors import DataError, MissingArtefact
from kore.io.files import read_json

_LABEL = re.compile(r"\w[\w.,+=() -]{0,99}")
_TAKEN = frozenset({"base", "rag"})


@dataclass(frozen=True)
class Target:
    """A model to evaluate or chat with, and where its parts are.

    Attributes:
        label: its name in tables.
        model: folder or hub id of the base.
        adapter: its adapter folder, if it has one.
        questions: the evaluation questions that the run's own data brought, if any.
        run: the run that the adapter belongs to, if it was named by its run.
    """

    label: str
    model: str
    adapter: Path | None = None
    questions: Path | None = None
    run: Run | None = None


def resolve_target(name: str, base: str = EMBEDDED) -> Target:
    """Resolve a run (path, or name under the runs folder), an adapter or model folder, a hub id or kore-tiny.

    Whatever is none of the first three is taken for a model; loading it reports what is missing.

    Args:
        base: the model of an adapter that names none, or names a folder that is not here.

    Raises:
        UsageError: a folder of several runs.
        MissingArtefact: a run without a finished adapter, or a folder that holds none of these.
        DataError: an adapter whose description cannot be read.
    """
    folder = Path(name) if name == EMBEDDED else locate(name)
    if (run := only_run(folder)) is not None:
        return _run_target(run, base)
    if (folder / ADAPTER).is_file():
        return _adapter_target(folder, folder.resolve().name, base)
    if folder.is_dir() and not (folder / CONFIG).is_file():
        raise MissingArtefact(
            f"{folder} is not a run, an adapter or a model",
            hint="name a run folder, an adapter folder or a model",
        )
    return Target("base", name)


def _run_target(run: Run, base: str) -> Target:
    state = run.state()
    if not (run.adapter / ADAPTER).is_file():
        raise MissingArtefact(
            f"{run.folder} has no finished adapter (status: {state.status})",
            hint=f"finish it with: {state.again or 'the command that began it'}",
        )
    questions = next((Path(v["path"]) for k, v in state.inputs.items() if k == "questions"), None)
    return _adapter_target(run.adapter, state.method, base, run, questions)


def _adapter_target(
    folder: Path, label: str, base: str, run: Run | None = None, questions: Path | None = None
) -> Target:
    facts = read_json(folder / FACTS) if (folder / FACTS).is_file() else {}
    config = read_json(folder / ADAPTER)
    if not isinstance(facts, dict) or not isinstance(config, dict):
        raise DataError("not an adapter's description", where=str(folder))
    named = (run and base_of(run)) or facts.get("model") or config.get("base_model_name_or_path")
    model = _usable(named) if isinstance(named, str) and named else None
    return Target(safe_label(facts.get("method"), label), model or base, folder, questions, run)


def base_of(run: Run) -> str | None:
    """The model that a run was trained on, as its run.json names it."""
    state = run.state()
    section: Any = state.profile.get("model", {})
    named = section.get("id") if isinstance(section, dict) else state.profile.get("model.id")
    path: str | None = state.inputs.get("model", {}).get("path") or named
    return path


def _usable(named: str) -> str | None:
    """The base that an adapter names: a folder that is here, kore-tiny, or a hub id, which the path of a
    snapshot in another machine's cache holds too; None for a folder that is not here."""
    if Path(named).is_dir() or "/" not in named.strip("/"):
        return named
    return hub_id(named)


def safe_label(*names: Any) -> str:
    """The first of `names` that is safe as a label: it becomes a file name, and comes with an adapter that
    anyone may have made. The labels of the base and of retrieval are taken."""
    usable = (n for n in names if isinstance(n, str) and _LABEL.fullmatch(n) and n not in _TAKEN)
    return next(usable, "adapter")
