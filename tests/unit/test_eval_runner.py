"""Answers are kept, resumed, shared between processes; base and tuned come from one copy of the weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kore import distributed
from kore.config.resolve import ModelSection
from kore.data.task import Task, TaskImage, UserTurn
from kore.distributed import World
from kore.errors import DataError
from kore.evaluation.agreement import load_agreement
from kore.evaluation.predictions import Key, Predictions
from kore.evaluation.questions import load_questions
from kore.evaluation.runner import evaluate
from kore.models.generate import Engine, Prompt
from kore.models.load import Backbone, load


class Parrot:
    """An engine that answers with the number of characters it was shown, and counts its calls."""

    def __init__(self, fail_after: int | None = None) -> None:
        self.backbone: Any = SimpleNamespace(fingerprint="base", reads={}, model=SimpleNamespace(dtype="x"))
        self.batch, self.max_new_tokens = 2, 8
        self.asked: list[Prompt] = []
        self.fail_after = fail_after

    def answer(
        self, prompts: Sequence[Prompt], *, adapter: bool, on_done: Callable[[int, str], None]
    ) -> list[str]:
        for index, prompt in enumerate(prompts):
            if self.fail_after is not None and len(self.asked) >= self.fail_after:
                raise KeyboardInterrupt
            self.asked.append(prompt)
            on_done(index, f"{sum(len(t.value) for t in prompt.turns)} {adapter}")
        return []


def _questions(folder: Path, count: int = 10) -> Path:
    path = folder / "q.jsonl"
    rows = [{"question_id": i, "text": "?" * (i + 1), "answer": "x"} for i in range(count)]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def _run(engine: Any, path: Path, out: Path, **more: Any) -> Any:
    return evaluate(engine, [load_questions(path)], out, label="kore", **more)


def test_a_stopped_evaluation_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    path, out = _questions(tmp_path), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        _run(Parrot(fail_after=5), path, out)
    second = Parrot()
    result = _run(second, path, out)
    assert len(second.asked) == 5 and (result.generated, result.reused) == (5, 5)
    third = Parrot()
    assert _run(third, path, out).scored["q"].samples == result.scored["q"].samples
    assert not third.asked


def test_figures_come_suite_by_suite_and_a_stopped_repetition_loses_none(tmp_path: Path) -> None:
    path, out = _questions(tmp_path, 4), tmp_path / "out"
    suites = [load_questions(path, name=name) for name in ("one", "two")]
    file = out / "scores" / "kore.json"

    def told() -> set[str]:
        return set(json.loads(file.read_text())["suites"])

    with pytest.raises(KeyboardInterrupt):
        evaluate(Parrot(fail_after=6), suites, out, label="kore")
    assert told() == {"one"}
    evaluate(Parrot(), suites, out, label="kore")
    assert told() == {"one", "two"}
    evaluate(Parrot(), suites[:1], out, label="kore")
    assert told() == {"one", "two"}
    other = Parrot()
    other.max_new_tokens = 9  # other answers: what was scored of the earlier ones is not theirs
    evaluate(other, suites[:1], out, label="kore")
    assert told() == {"one"}


def test_a_torn_last_line_costs_one_answer(tmp_path: Path) -> None:
    path, out = _questions(tmp_path), tmp_path / "out"
    whole = _run(Parrot(), path, out).scored["q"].samples
    log = out / "answers" / "kore" / "q" / "answers-000.jsonl"
    log.write_bytes(log.read_bytes()[:-7])
    again = Parrot()
    assert _run(again, path, out).scored["q"].samples == whole
    assert len(again.asked) == 1


def test_a_changed_question_a_changed_model_or_other_settings_are_asked_again(tmp_path: Path) -> None:
    path, out = _questions(tmp_path, 3), tmp_path / "out"
    _run(Parrot(), path, out)
    path.write_text(path.read_text().replace('"??"', '"other"'))
    changed = Parrot()
    _run(changed, path, out)
    assert [p.turns[0].value for p in changed.asked] == ["other"]
    other_model = Parrot()
    _run(other_model, path, out, fingerprint="else")
    assert len(other_model.asked) == 3
    longer = Parrot()
    longer.max_new_tokens = 9
    _run(longer, path, out)
    assert len(longer.asked) == 3
    coarser = Parrot()
    coarser.backbone.reads = {"max_pixels": 65536}
    _run(coarser, path, out)
    assert len(coarser.asked) == 3


def test_the_result_does_not_depend_on_the_number_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "broadcast", lambda value: value)  # there is no group in this process
    path = _questions(tmp_path)
    alone = _run(Parrot(), path, tmp_path / "one").scored["q"]
    for rank in (2, 1, 0):
        monkeypatch.setattr(distributed, "current", partial(World, rank, 3))
        result = _run(Parrot(), path, tmp_path / "many")
        assert bool(result.scored) is (rank == 0)
    assert result.scored["q"].samples == alone.samples
    more = Parrot()
    monkeypatch.setattr(distributed, "current", World)
    _run(more, path, tmp_path / "many")
    assert not more.asked


def test_a_dialogue_is_asked_turn_by_turn_with_the_models_own_replies(tmp_path: Path) -> None:
    class Dialogue:
        name, role, facts = "d", "retention", {}

        def tasks(self) -> Any:
            return iter([Task("a", (UserTurn("one"), UserTurn("three"))), Task("b", (UserTurn("x"),))])

        def __len__(self) -> int:
            return 2

        def score(self, answers: Any) -> Any:
            self.answers = answers
            return load_questions(_questions(tmp_path, 1), role="retention").score({})

    suite, engine = Dialogue(), Parrot()
    evaluate(engine, [suite], tmp_path / "out", label="x")  # type: ignore[arg-type, list-item]
    assert suite.answers == {"a": ["3 True", "14 True"], "b": ["1 True"]}
    assert [t.value for t in engine.asked[-1].turns] == ["one", "3 True", "three"]


def test_a_missing_picture_names_file_and_sample(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps({"question_id": "s7", "image": "gone.png", "text": "?", "answer": "x"}) + "\n")
    with pytest.raises(DataError, match=r"q.jsonl:1: question s7: no such picture: .*gone.png"):
        _run(Parrot(), path, tmp_path / "out")


def test_a_picture_counts_by_its_content_not_its_name(tmp_path: Path) -> None:
    from kore.evaluation.predictions import prompt_hash

    (tmp_path / "a.png").write_bytes(b"1")
    (tmp_path / "b.png").write_bytes(b"1")
    asks = [(UserTurn("?", (TaskImage(str(tmp_path / n)),)),) for n in ("a.png", "b.png")]
    assert prompt_hash(asks[0]) == prompt_hash(asks[1])
    (tmp_path / "b.png").write_bytes(b"2")
    assert prompt_hash(asks[0]) != prompt_hash(asks[1])


def test_stored_answers_survive_odd_text(tmp_path: Path) -> None:
    key = Key("a", 0, "p", "m", "g")
    with Predictions(tmp_path) as store:
        store.put(key, 'x\n\t"\u2028 é\x00')
    assert Predictions(tmp_path).get(key) == 'x\n\t"\u2028 é\x00'


@pytest.fixture(scope="module")
def adapted(tiny_llava: Path) -> Backbone:
    """The tiny model with an adapter that changes its answers."""
    import torch

    from kore.adapters.lora import attach

    backbone = load(ModelSection(id=str(tiny_llava), device="cpu"))
    torch.manual_seed(1)
    backbone.model = attach(backbone.model, backbone.family, rank=4)
    with torch.no_grad():
        for name, value in backbone.model.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.5)
    return backbone


def test_base_and_tuned_answer_from_one_copy_and_agreement_is_measured(
    adapted: Backbone, picture: Path, tmp_path: Path
) -> None:
    path = tmp_path / "old.jsonl"
    rows = [
        {
            "id": f"s{i}",
            "image": picture.name,
            "conversations": [
                {"from": "human", "value": f"<image>\nWhat is {i}?"},
                {"from": "gpt", "value": "x"},
            ],
        }
        for i in range(5)
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    suite = load_agreement(path)
    engine = Engine(adapted, batch=4, max_new_tokens=6)
    base = evaluate(engine, [suite], tmp_path / "out", label="base", adapter=False).scored["agreement"]
    tuned = evaluate(engine, [suite], tmp_path / "out", label="kore", adapter=True).scored["agreement"]
    assert base.headline == 100 and base.metrics["kl"] == 0
    assert tuned.headline is not None and tuned.headline < 100 and tuned.metrics["kl"] > 0.01
    assert tuned.counts["kl"] == 5
    assert [v.answer for v in tuned.samples] == [v.prediction for v in base.samples]


def test_a_silent_adapter_agrees_fully(tiny_llava: Path, tmp_path: Path) -> None:
    from kore.adapters.lora import attach

    backbone = load(ModelSection(id=str(tiny_llava), device="cpu"))
    backbone.model = attach(backbone.model, backbone.family, rank=2)
    path = _questions(tmp_path, 3)
    tuned = evaluate(
        Engine(backbone, batch=2, max_new_tokens=4), [load_agreement(path)], tmp_path / "out", label="kore"
    )
    assert tuned.scored["agreement"].headline == 100
    assert tuned.scored["agreement"].metrics["kl"] == pytest.approx(0, abs=1e-9)


def test_sixteen_at_once_answer_as_one_by_one_in_float32(adapted: Backbone, picture: Path) -> None:
    prompts = [Prompt.ask("word " * (i % 7) + f"{i}?", [picture] if i % 3 else []) for i in range(16)]
    together = Engine(adapted, batch=16, max_new_tokens=12).answer(prompts)
    assert together == Engine(adapted, batch=1, max_new_tokens=12).answer(prompts)
