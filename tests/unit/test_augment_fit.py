"""Samples that the model can hold: dialogues in several parts, long texts at sentence ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from kore.augment import grow
from kore.augment.fit import Fitter
from kore.config.resolve import resolve
from kore.data.read import read_records
from kore.data.records import KnowledgeItem, Sample
from kore.errors import DataError
from kore.models.token_budget import TokenBudget, token_budget

TOWER = "The tower was built by the harbour masters of the old town."


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fit") / "tower.png"
    Image.new("RGB", (40, 30), (120, 90, 200)).save(path)
    return path


def item(picture: Path, facts: int = 0, text: str = TOWER, **changes: object) -> KnowledgeItem:
    known = {f"property {n}": f"quite a long value of the property with number {n}" for n in range(facts)}
    given = {
        "id": "tower",
        "kind": "entity",
        "type": "building",
        "title": "Harbour Tower",
        "text": text,
        "image": str(picture),
        "facts": known,
    }
    return KnowledgeItem.model_validate({**given, **changes})


def budget(limit: int) -> TokenBudget:
    profile = resolve("tiny", {"train.max_length": limit}).profile
    return token_budget(profile.model, profile.train)


def grown(folder: Path, items: list[KnowledgeItem], limit: int, **settings: object) -> list[Sample]:
    profile = resolve("tiny", {"augment.copies": 1, **{f"augment.{k}": v for k, v in settings.items()}})
    grow(items, profile.profile.augment, folder, budget=budget(limit), places={"tower": "items.jsonl:1"})
    return list(read_records(Sample, folder / "samples.jsonl"))


def dialogues(samples: list[Sample]) -> list[Sample]:
    return [s for s in samples if "-dialogue" in s.id]


def test_a_length_without_encoding_is_that_of_the_encoded_sample(tmp_path: Path, picture: Path) -> None:
    measure = budget(256)
    for sample in grown(tmp_path, [item(picture, 4)], 256):
        assert measure.tokens(sample) == len(measure.encoder.training(sample)["input_ids"])


def test_a_dialogue_is_split_between_turns_with_title_and_picture_in_each_part(
    tmp_path: Path, picture: Path
) -> None:
    measure = budget(200)
    whole = dialogues(grown(tmp_path / "whole", [item(picture, 9)], 512))
    parts = dialogues(grown(tmp_path / "parts", [item(picture, 9)], 200))
    assert len(whole) == 1 and len(parts) > 1
    turns = [m.value for m in whole[0].conversations]
    for part in parts:
        assert measure.fits(part) and part.images
        assert "Harbour Tower" in " ".join(m.value for m in part.conversations)
    answers = [m.value for p in parts for m in p.conversations if m.from_ == "gpt"]
    assert [a for a in answers if "property" in a] == [a for a in turns[1::2] if "property" in a]
    report = json.loads((tmp_path / "parts" / "report.json").read_text())["fit"]
    assert report["split"] == {"tower": len(parts)} and not report["left_out"]


def test_a_long_text_is_split_at_sentence_ends(tmp_path: Path, picture: Path) -> None:
    text = " ".join(f"Sentence {n} tells of the tower by the sea and of its keepers." for n in range(30))
    measure = budget(200)
    parts = grown(tmp_path, [item(picture, text=text)], 200, strategy="none")
    assert len(parts) > 1 and all(measure.fits(part) for part in parts)
    assert " ".join(p.conversations[1].value for p in parts) == text
    assert all("Harbour Tower" in p.conversations[0].value for p in parts)
    assert len({p.conversations[0].value for p in parts}) == len(parts)


def test_a_turn_that_cannot_fit_is_left_out_with_its_item_and_its_question(
    tmp_path: Path, picture: Path
) -> None:
    long = {"motto": "never " * 300, "height": "40 m"}
    samples = grown(tmp_path, [item(picture, facts=0).model_copy(update={"facts": long})], 200)
    assert not any("never never" in m.value for s in samples for m in s.conversations)
    assert any(m.value == "40 m" for s in samples for m in s.conversations)
    left_out = json.loads((tmp_path / "report.json").read_text())["fit"]["left_out"]
    assert {(one["item"], one["where"]) for one in left_out} == {("tower", "items.jsonl:1")}
    assert "never never" not in (tmp_path / "eval.jsonl").read_text()


def test_an_item_that_cannot_fit_is_not_taught_and_the_others_are(tmp_path: Path, picture: Path) -> None:
    unreadable = item(picture, id="long", title="tower " * 300, text="It is a tower.")
    samples = grown(tmp_path / "one", [unreadable, item(picture, 2)], 200)
    assert {s.id.split("-")[0] for s in samples} == {"tower"}
    assert json.loads((tmp_path / "one" / "report.json").read_text())["fit"]["not_taught"] == ["long"]
    assert '"long-name"' not in (tmp_path / "one" / "eval.jsonl").read_text()
    with pytest.raises(DataError, match=r"no item fits .*item long") as caught:
        grown(tmp_path / "none", [unreadable], 200)
    assert caught.value.hint and "512, the most that the model takes" in caught.value.hint


def test_a_budget_that_holds_everything_changes_nothing(tmp_path: Path, picture: Path) -> None:
    settings = resolve("tiny").profile.augment
    grow([item(picture, 3)], settings, tmp_path / "plain")
    grow([item(picture, 3)], settings, tmp_path / "measured", budget=budget(512))
    same = [(tmp_path / name / "samples.jsonl").read_text() for name in ("plain", "measured")]
    assert same[0] == same[1]


def test_a_dialogue_without_pictures_names_its_item_in_each_part() -> None:
    about = item(Path("none"), image=None, kind="news", title="Harbour Tower reopens")
    pairs = [(f"Question {n} about it, asked at some length?", "An answer. " * 8) for n in range(8)]
    chunks = Fitter(budget(150)).dialogue(about, None, pairs, None)
    assert len(chunks) > 1
    assert all(any("Harbour Tower reopens" in q for q, _ in chunk) for chunk in chunks)
