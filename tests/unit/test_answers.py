"""Which questions are shown with every model's answers."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from kore.evaluation.runner import Result
from kore.evaluation.types import Outcome, Role, Scored, Verdict
from kore.workflows.example_answers import side_by_side


class Asked:
    """A suite by its name and role."""

    def __init__(self, name: str, role: Role) -> None:
        self.name, self.role = name, role


def verdicts(name: str, count: int, outcome: Outcome) -> list[Verdict]:
    return [Verdict(f"{name}{i}", f"q{i}", "a", "p", None, outcome, "why") for i in range(count)]


def results(new: int, old: int, failed: int = 0) -> dict[str, Result]:
    """The base is wrong everywhere; the adapter is right but for the last `failed` new questions."""

    def result(label: str, outcome: Literal["right", "wrong"]) -> Result:
        fresh = verdicts("new", new, outcome) + verdicts("failed", failed, "wrong")
        scored = {
            "new": Scored("new", "adaptation", None, "x", {}, {}, fresh),
            "old": Scored("old", "retention", None, "x", {}, {}, verdicts("old", old, outcome)),
        }
        return Result(label, label, scored)

    return {"base": result("base", "wrong"), "kore": result("kore", "right")}


def shown(new: int, old: int, failed: int = 0, **options: int) -> list[tuple[str, str]]:
    suites: list[Any] = [Asked("new", "adaptation"), Asked("old", "retention")]
    found = side_by_side(suites, results(new, old, failed), ("base", "kore"), **options)
    return [(f["about"], f["question"]) for f in found]


@pytest.mark.parametrize("old", [0, 1])
@pytest.mark.parametrize("new", range(7))
def test_as_many_as_are_wanted_and_there_are_old_knowledge_last(new: int, old: int) -> None:
    found = shown(new, old)
    assert len(found) == len(set(found)) == min(3, new + old)
    assert [about for about, _ in found] == ["new"] * (len(found) - old) + ["old"] * old


def test_new_questions_are_spread_over_the_file() -> None:
    assert shown(6, 0) == [("new", "q0"), ("new", "q2"), ("new", "q4")]
    assert shown(6, 3) == [("new", "q0"), ("new", "q3"), ("old", "q0")]


def test_what_was_not_learned_comes_after_as_far_as_it_is_wanted() -> None:
    assert shown(1, 0, 2) == [("new", "q0")]
    assert shown(4, 1, 2, failures=1) == [("new", "q0"), ("new", "q2"), ("old", "q0"), ("new", "q0")]
