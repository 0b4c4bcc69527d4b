"""The embedded demo's retention suites, from far to near, and its held-out old prompts."""

from __future__ import annotations

from pathlib import Path

from kore.errors import MissingArtefact
from kore.evaluation.questions import QuestionSuite, load_questions

FAR = ("easy-vqa", "pictures", "choice", "yes-no", "text")
NEAR = ("countries",)


def folder() -> Path:
    """Where the demo's data lies in the package."""
    return Path(__file__).parents[1] / "demo" / "data"


def demo_suites(split: str = "test", names: tuple[str, ...] = FAR + NEAR) -> list[QuestionSuite]:
    """The demo's retention suites.

    Args:
        split: ``test`` for results, ``validation`` for every choice of a setting.
    """
    suites = []
    for name in names:
        path = folder() / "suites" / f"{name}.jsonl"
        if not path.is_file():
            raise MissingArtefact(
                f"the demo's suite {name} is not in this installation", hint="install KORE again"
            )
        suites.append(load_questions(path, name=name, role="retention", split=split, near=name in NEAR))
    return suites
