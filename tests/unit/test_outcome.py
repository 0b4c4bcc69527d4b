"""Verdicts per item and the command that continues, chosen from what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from kore.config.resolve import resolve
from kore.data.records import KnowledgeItem
from kore.evaluation.types import Verdict
from kore.workflows.result import ItemVerdict, Measured, Missed, advise, headline, item_verdicts


def item(name: str) -> KnowledgeItem:
    return KnowledgeItem(id=name, kind="entity", type="thing", title=name.upper(), text="")


def answer(group: str, score: float, given: str = "x") -> Verdict:
    outcome = "right" if score else "wrong"
    return Verdict(f"{group}-q", "<image>\nWhat?\nOne word.", "y", given, score, outcome, "", group=group)  # type: ignore[arg-type]


def some(*names: str) -> list[ItemVerdict]:
    return [ItemVerdict(f"i{n}", f"I{n}", name) for n, name in enumerate(names)]  # type: ignore[arg-type]


def test_each_item_has_a_verdict_with_what_was_answered_wrongly() -> None:
    answers = [answer("a", 1), answer("b", 1), answer("b", 0, "z"), answer("c", 0)]
    found = item_verdicts([item(n) for n in "abcde"], answers, {"b": "items.jsonl:2"}, ["e"])
    assert [one.verdict for one in found] == ["learned", "partly", "not", "not asked", "not taught"]
    assert found[1].failed == [Missed("What?", "y", "z")] and found[1].where == "items.jsonl:2"
    assert (
        headline(found, 0.957) == "1 of 4 items learned (1 more without a question), old knowledge 96 % kept"
    )


@pytest.mark.parametrize(
    ("verdicts", "measured", "expected"),
    [
        (("learned", "partly"), Measured(80, 0.4, 0.99, False), ["train.max_steps=160", "train.epochs=80"]),
        (("not", "not"), Measured(80, 3.0, 0.99, False), ["train.lr=0.04"]),
        (("partly",), Measured(80, 0.4, 0.6, False), ["train.lr=0.01", "train.max_steps=160"]),
        (("partly",), Measured(80, 0.01, 1.0, True), ["--profile smolvlm"]),
        (("partly",), Measured(80, 0.01, 1.0, False), ["augment.copies=8", "train.max_steps=160"]),
        (("learned", "not taught"), Measured(80, 0.01, 1.0, False), ["train.max_length=512"]),
    ],
)
def test_the_command_follows_from_what_was_measured(
    tmp_path: Path, verdicts: tuple[str, ...], measured: Measured, expected: list[str]
) -> None:
    command = ("kore", "inject", "my items.jsonl", "--set", "train.lr=1", "-o", "run", "--json", "--restart")
    found = advise(some(*verdicts), resolve("tiny").profile, measured, command, tmp_path / "run")
    assert found is not None
    assert found.command.startswith("kore inject 'my items.jsonl'")
    assert found.command.endswith(f"-o {tmp_path / 'run-2'}")
    assert all(part in found.command for part in expected)
    assert "--restart" not in found.command and "--json" not in found.command
    assert found.command.count("train.lr") == 1


def test_nothing_is_advised_where_all_is_learned(tmp_path: Path) -> None:
    measured = Measured(80, 0.5, 0.5, True)
    verdicts = some("learned", "not asked")
    assert advise(verdicts, resolve("tiny").profile, measured, ("kore",), tmp_path) is None
