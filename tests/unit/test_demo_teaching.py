"""The base's training goes on from a checkpoint with the very batches that an unbroken one would take."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from scripts.tiny_base import teaching
from scripts.tiny_base.network import load_checkpoint, save_checkpoint
from scripts.tiny_base.teaching import Feed, Plan


@pytest.fixture
def numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Talks are numbers, and a batch is the list of its talks."""

    def talk(world: object, rng: random.Random, comparing: bool = False) -> Any:
        return SimpleNamespace(turns=[SimpleNamespace(question=rng.random())])

    def collate(talks: list[Any], *_: object) -> list[float]:
        return [t.turns[0].question for t in talks]

    monkeypatch.setattr(teaching, "drill", lambda world, encoder, rng: rng.random())
    monkeypatch.setattr(teaching, "collate", collate)
    monkeypatch.setattr(teaching, "COMPARING", ((talk, 1.0),))
    monkeypatch.setattr(teaching.text_tasks, "comparing_talk", talk)


@pytest.mark.parametrize("first", range(14))
def test_a_feed_goes_on_in_the_middle_of_a_draw(numbered: None, first: int) -> None:
    plan = Plan(14, comparing=True, drills=3, seeing=2, reading=1)
    encoder: Any = SimpleNamespace(pieces=lambda question: [0] * int(10 * question))

    def feed(start: int) -> list[Any]:
        source = Feed(None, encoder, None, plan, start)  # type: ignore[arg-type]
        return [source.next() for _ in range(start, plan.steps)]

    assert feed(first) == feed(0)[first:]


def test_a_checkpoint_puts_weights_and_optimiser_back(tmp_path: Any) -> None:
    def train(model: torch.nn.Linear, optimiser: torch.optim.AdamW, steps: range) -> None:
        for step in steps:
            optimiser.zero_grad()
            model(torch.full((1, 3), float(step))).sum().backward()
            optimiser.step()

    def made() -> tuple[torch.nn.Linear, torch.optim.AdamW]:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        return model, torch.optim.AdamW(model.parameters())

    whole, optimiser = made()
    train(whole, optimiser, range(6))
    broken, optimiser = made()
    train(broken, optimiser, range(3))
    path = tmp_path / "knowing.pt"
    assert load_checkpoint(path, {}) == 0
    save_checkpoint(path, {"model": broken, "optimiser": optimiser}, 3)
    other, optimiser = made()
    assert load_checkpoint(path, {"model": other, "optimiser": optimiser}) == 3
    train(other, optimiser, range(3, 6))
    assert torch.equal(other.weight, whole.weight) and torch.equal(other.bias, whole.bias)
    assert [p.name for p in tmp_path.iterdir()] == ["knowing.pt"]
