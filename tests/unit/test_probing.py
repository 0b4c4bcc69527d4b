"""Which probes a run asks."""

from __future__ import annotations

from pathlib import Path

from kore.config.resolve import TrainSection
from kore.data.records import Question, Sample, encode
from kore.workflows.probe_selection import NEW, find_probes

TYPES = ("name", "capital", "continent", "currency", "language")


def asked(tmp_path: Path, items: int, old: int = 0) -> list[tuple[str, str]]:
    """Kind and id of the probes for so many items with a question of each type, and old samples."""
    path = tmp_path / "eval.jsonl"
    questions = [
        Question(question_id=f"{item}-{kind}", text=f"{kind}?", answer=kind, type=kind)
        for item in range(items)
        for kind in TYPES
    ]
    path.write_text("".join(encode(q) + "\n" for q in questions), encoding="utf-8")
    turns = [{"from": "human", "value": "Which?"}, {"from": "gpt", "value": "This."}]
    samples = [Sample.model_validate({"id": f"old-{i}", "conversations": turns}) for i in range(old)]
    probing = find_probes(None, path, samples, TrainSection())
    return [(p.kind, p.id) for p in probing.probes] if probing else []


def test_probes_are_of_several_types_though_every_item_has_the_same_types_in_a_row(tmp_path: Path) -> None:
    for items in (8, 16, 24, 32, 40):
        types = {name.partition("-")[2] for _, name in asked(tmp_path, items)}
        assert len(types) >= 3, (items, types)


def test_the_choice_is_small_and_the_same_every_time(tmp_path: Path) -> None:
    first = asked(tmp_path, 24, old=100)
    assert [kind for kind, _ in first] == ["new"] * NEW + ["old"] * NEW
    assert first == asked(tmp_path, 24, old=100)


def test_few_questions_are_all_asked_in_their_order(tmp_path: Path) -> None:
    assert [name for _, name in asked(tmp_path, 1)] == [f"0-{kind}" for kind in TYPES]
