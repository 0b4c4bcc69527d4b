"""Retrieval finds the item of the picture, or of the title, and puts its text before the question."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from kore.methods.rag import RagEngine
from kore.models.generate import Engine, Prompt
from kore.models.load import load
from kore.profile import ModelSection
from kore.records import KnowledgeItem


@pytest.fixture
def items(tmp_path: Path) -> list[KnowledgeItem]:
    made = []
    for i, (name, colour) in enumerate({"Peru": "red", "Chad": "blue", "Fiji": "lime"}.items()):
        path = tmp_path / f"{name}.png"
        Image.new("RGB", (40, 30), colour).save(path)
        made.append(
            KnowledgeItem(
                id=str(i), kind="entity", type="country", title=name, text=f"{name} it is.", image=str(path)
            )
        )
    return made


@pytest.mark.parametrize("family", ["tiny_llava", "tiny_qwen"])
def test_a_picture_finds_its_item_whose_text_stands_before_the_question(
    family: str, items: list[KnowledgeItem], request: pytest.FixtureRequest
) -> None:
    backbone = load(ModelSection(id=str(request.getfixturevalue(family))))
    engine = RagEngine(backbone, items, max_new_tokens=4, least=0.0)
    for item in items:
        asked = engine.with_context(Prompt.ask("What is the capital?", [item.images[0]]))
        assert asked.turns[-1].value == f"<image>\n{item.text}\nWhat is the capital?"
    answers = engine.answer([Prompt.ask("Which?", [items[0].images[0]])])
    plain = Prompt.ask(f"{items[0].text}\nWhich?", [items[0].images[0]])
    assert answers == Engine(backbone, max_new_tokens=4).answer([plain])


def test_without_a_picture_the_named_item_is_found_and_else_nothing(
    tiny_llava: Path, items: list[KnowledgeItem]
) -> None:
    engine = RagEngine(load(ModelSection(id=str(tiny_llava))), items)
    assert engine.with_context(Prompt.ask("Where is Fiji?")).turns[-1].value == "Fiji it is.\nWhere is Fiji?"
    assert engine.with_context(Prompt.ask("Where is it?")) == Prompt.ask("Where is it?")


def test_a_strange_picture_brings_up_nothing(
    tiny_llava: Path, items: list[KnowledgeItem], tmp_path: Path
) -> None:
    engine = RagEngine(load(ModelSection(id=str(tiny_llava))), items, least=0.9999)
    Image.effect_noise((40, 30), 120).convert("RGB").save(tmp_path / "noise.png")
    asked = Prompt.ask("What?", [tmp_path / "noise.png"])
    assert engine.with_context(asked) == asked
