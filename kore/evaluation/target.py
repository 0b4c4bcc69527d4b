"""What is to be evaluated: a run, an adapter folder, or a model; loaded once, with the base beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.errors import DataError, MissingArtefact

if TYPE_CHECKING:
    from kore.artifacts.run import Run
    from kore.config.resolve import ModelSection
    from kore.models.load import Backbone

_LABEL = re.compile(r"\w[\w.,+=() -]{0,99}")
_TAKEN = frozenset({"base", "rag"})
_SNAPSHOT = re.compile(r"/models--([\w.-]+?)--([\w.-]+)/snapshots/")
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


@dataclass(frozen=True)
class Target:
    """Where the parts of what is to be evaluated lie.

    Attributes:
        label: its name in tables.
        model: folder or hub id of the base.
        adapter: its adapter folder, if it has one.
        questions: the evaluation questions that its own data brought, if found.
    """

    label: str
    model: str
    adapter: Path | None = None
    questions: Path | None = None


def find_target(name: str, section: ModelSection) -> Target:
    """Tell what `name` is: a run folder, an adapter folder, a model folder, a hub id or kore-tiny.

    Args:
        section: the profile's model, for an adapter that does not name its own.

    Raises:
        MissingArtefact: a run that has no adapter yet, or no such thing.
    """
    from kore.artifacts.run import run_at

    folder = Path(name)
    if (run := run_at(folder)) is not None:
        return _run(run, section)
    if (folder / "adapter_config.json").is_file():
        return _adapter(folder, folder.resolve().name, section, None)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise MissingArtefact(
            f"{folder} is no run, adapter or model",
            hint="kore eval takes a run folder, an adapter folder or a model",
        )
    return Target("base", name)


def _run(run: Run, section: ModelSection) -> Target:
    state = run.state()
    if not (run.adapter / "adapter_config.json").is_file():
        raise MissingArtefact(
            f"{run.folder} has no finished adapter (status: {state.status})",
            hint=f"finish it with: {state.again or 'the command that began it'}",
        )
    questions = next((Path(v["path"]) for k, v in state.inputs.items() if k == "questions"), None)
    named = state.profile.get("model", {})
    named = named.get("id") if isinstance(named, dict) else state.profile.get("model.id")
    known = state.inputs.get("model", {}).get("path") or named
    return _adapter(run.adapter, state.method, section, known, questions)


def _adapter(
    folder: Path, label: str, section: ModelSection, known: Any, questions: Path | None = None
) -> Target:
    from kore.io.files import read_json

    facts = read_json(folder / "kore.json") if (folder / "kore.json").is_file() else {}
    config = read_json(folder / "adapter_config.json")
    if not isinstance(facts, dict) or not isinstance(config, dict):
        raise DataError("not an adapter's description", where=str(folder))
    named = known or facts.get("model") or config.get("base_model_name_or_path")
    model = _usable(named) if isinstance(named, str) and named else None
    return Target(safe_label(facts.get("method"), label), model or section.id, folder, questions)


def _usable(named: str) -> str | None:
    """The base that an adapter names: a folder that is here, kore-tiny, or a hub id, which the path of a
    snapshot in another machine's cache holds too; None for a folder that is not here."""
    if Path(named).is_dir() or "/" not in named.strip("/"):
        return named
    return hub_id(named)


def hub_id(named: str) -> str | None:
    """The hub id that a path into the hub's cache is of, or that the text itself is."""
    if found := _SNAPSHOT.search(named):
        return f"{found[1]}/{found[2]}"
    return named if _HUB_ID.fullmatch(named) and not Path(named).parent.is_dir() else None


def safe_label(*names: Any) -> str:
    """The first of `names` that can stand for a model: it becomes a file's name, and comes with an adapter
    that anyone may have made. The base's name and retrieval's are taken."""
    usable = (n for n in names if isinstance(n, str) and _LABEL.fullmatch(n) and n not in _TAKEN)
    return next(usable, "adapter")


def load_target(target: Target, section: ModelSection, *, download: bool = False) -> Backbone:
    """Load the base, with the target's adapter on it."""
    from kore.adapters.lora import load_adapter
    from kore.models.load import load

    backbone = load(section.model_copy(update={"id": target.model}), download=download)
    if target.adapter is not None:
        load_adapter(backbone, target.adapter)
    return backbone
