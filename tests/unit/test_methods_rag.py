"""Retrieval finds the item of the picture, or of the title, and puts its text before the question."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from kore.chat import Ask, Session
from kore.config.resolve import ModelSection
from kore.data.records import KnowledgeItem, KnowledgeTree, encode
from kore.evaluation.agreement import load_agreement
from kore.evaluation.run_eval import Request, carry_out
from kore.evaluation.runner import evaluate
from kore.methods.rag import RagEngine, Retriever, read_items
from kore.models.generate import Engine, Prompt
from kore.models.load import load


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
    retriever = Retriever(backbone, items, least=0.0)
    for item in items:
        asked, found = retriever.with_context(Prompt.ask("What is the capital?", [item.images[0]]))
        assert found == item
        assert asked.turns[-1].value == f"<image>\n{item.text}\nWhat is the capital?"
    answers = RagEngine(retriever, max_new_tokens=4).answer([Prompt.ask("Which?", [items[0].images[0]])])
    plain = Prompt.ask(f"{items[0].text}\nWhich?", [items[0].images[0]])
    assert answers == Engine(backbone, max_new_tokens=4).answer([plain])


def test_without_a_picture_the_named_item_is_found_and_else_nothing(
    tiny_llava: Path, items: list[KnowledgeItem]
) -> None:
    engine = Retriever(load(ModelSection(id=str(tiny_llava))), items)
    asked, _ = engine.with_context(Prompt.ask("Where is Fiji?"))
    assert asked.turns[-1].value == "Fiji it is.\nWhere is Fiji?"
    assert engine.with_context(Prompt.ask("Where is it?")) == (Prompt.ask("Where is it?"), None)


def test_a_strange_picture_brings_up_nothing(
    tiny_llava: Path, items: list[KnowledgeItem], tmp_path: Path
) -> None:
    engine = Retriever(load(ModelSection(id=str(tiny_llava))), items, least=0.9999)
    Image.effect_noise((40, 30), 120).convert("RGB").save(tmp_path / "noise.png")
    asked = Prompt.ask("What?", [tmp_path / "noise.png"])
    assert engine.with_context(asked) == (asked, None)


def test_the_picture_of_the_last_question_is_looked_up(tiny_llava: Path, items: list[KnowledgeItem]) -> None:
    retriever = Retriever(load(ModelSection(id=str(tiny_llava))), items, least=0.0)
    first, last = (Prompt.ask("What?", [item.images[0]]) for item in items[:2])
    both = Prompt((*first.turns, *last.turns), (*first.images, *last.images))
    assert retriever.with_context(both)[1] == items[1]


def test_items_are_read_from_their_file_or_from_the_trees_made_of_them(
    tmp_path: Path, items: list[KnowledgeItem]
) -> None:
    (tmp_path / "items.jsonl").write_text("".join(encode(i) + "\n" for i in items))
    (tmp_path / "tree").mkdir()
    trees = [KnowledgeTree(item=i, trunk=[]) for i in items]
    (tmp_path / "tree" / "tree.jsonl").write_text("".join(encode(t) + "\n" for t in trees))
    assert [i.title for i in read_items(tmp_path / "items.jsonl")] == ["Peru", "Chad", "Fiji"]
    assert read_items(tmp_path / "tree") == read_items(tmp_path / "tree" / "tree.jsonl") == items


def test_chat_asks_retrieval_unless_another_is_named_and_tells_what_it_found(
    tiny_llava: Path, tmp_path: Path, items: list[KnowledgeItem]
) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text("".join(encode(i) + "\n" for i in items))
    session = Session.open(str(tiny_llava), ModelSection(), max_new_tokens=4, rag=path)
    assert session.models == ["rag", "base"]
    asked, compared, plain = session.answer(
        [Ask("Where is Fiji?"), Ask("Where is Fiji?", compare=True), Ask("Where is Fiji?", model="base")]
    )
    assert isinstance(asked, list) and isinstance(compared, list) and isinstance(plain, list)
    assert [(r.model, r.found) for r in asked] == [("rag", "Fiji")]
    assert [(r.model, r.answer) for r in compared] == [("base", plain[0].answer), ("rag", asked[0].answer)]
    streamed = [r for _, r in session.stream(Ask("Where is Fiji?"), lambda: False) if not isinstance(r, str)]
    assert (streamed[0].answer, streamed[0].found) == (asked[0].answer, "Fiji")
    assert plain[0].found is None
    given = Ask("Fiji it is.\nWhere is Fiji?", model="base")
    assert session.answer([given])[0][0].answer == asked[0].answer  # type: ignore[index]


def test_eval_has_a_row_for_retrieval_beside_the_base(
    tiny_llava: Path, tmp_path: Path, items: list[KnowledgeItem]
) -> None:
    path, questions = tmp_path / "items.jsonl", tmp_path / "eval.jsonl"
    path.write_text("".join(encode(i) + "\n" for i in items))
    row = {"question_id": "1", "text": "Where is Fiji?", "answer": "x"}
    questions.write_text(json.dumps(row) + "\n")
    request = Request(
        target=str(tiny_llava),
        suites=[str(questions)],
        rag=path,
        base=False,
        out=tmp_path / "out",
        settings={"eval.max_new_tokens": 4},
    )
    outcome = carry_out(request)
    assert [r["method"] for r in outcome.summary["table"]] == ["base", "rag"]
    samples = tmp_path / "out" / "samples"
    said = {m: json.loads((samples / m / "eval.jsonl").read_text())["prediction"] for m in ("base", "rag")}
    engine = Engine(load(ModelSection(id=str(tiny_llava))), max_new_tokens=4)
    alone, helped = engine.answer([Prompt.ask("Where is Fiji?"), Prompt.ask("Fiji it is.\nWhere is Fiji?")])
    assert (said["base"], said["rag"]) == (alone, helped)


def test_retrieval_is_compared_with_the_base_and_not_with_itself(
    tiny_llava: Path, tmp_path: Path, items: list[KnowledgeItem]
) -> None:
    prompts = tmp_path / "old.jsonl"
    prompts.write_text(json.dumps({"question_id": "1", "text": "Where is Fiji?", "answer": "x"}) + "\n")
    suite = load_agreement(prompts)
    backbone = load(ModelSection(id=str(tiny_llava)))
    retrieving = RagEngine(Retriever(backbone, items), max_new_tokens=4)
    engine = Engine(backbone, max_new_tokens=4)
    alone, helped = engine.answer([Prompt.ask("Where is Fiji?"), Prompt.ask("Fiji it is.\nWhere is Fiji?")])
    assert alone != helped
    result = evaluate(
        retrieving, [suite], tmp_path / "out", label="rag", adapter=False, fingerprint=retrieving.fingerprint
    )
    (verdict,) = result.scored["agreement"].samples
    assert (verdict.answer, verdict.prediction) == (alone, helped)
    assert result.scored["agreement"].headline == 0
    base = evaluate(engine, [suite], tmp_path / "out", label="base", adapter=False)
    assert base.reused == 1 and base.answers["agreement"]["1"] == [alone]
