"""EVOKE's injection file read as items, and told apart from items by its first record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kore.data.evoke import detect, read_items
from kore.errors import DataError


def record(name: int, image: str, question: str, text: str, **more: Any) -> dict[str, Any]:
    turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": text}]
    return {"id": name, "image": image, "conversations": turns, **more}


@pytest.fixture
def injection(tmp_path: Path) -> Path:
    records = [
        record(
            0,
            "wikidata_imgs/Ada Lovelace_wiki.jpg",
            "What is the human entity in the image?",
            "Ada Lovelace wrote notes.",
        ),
        record(
            1,
            "cnn_news_imgs/cnn_12/x.jpg",
            "What is the politics news in the image?",
            "A bill passed. It was long.",
        ),
        record(
            2,
            "a/b.jpg",
            "Describe this.",
            "Some text here.",
            title="Given",
            type="film",
            cnn_wiki_type="wiki",
        ),
    ]
    path = tmp_path / "evoke_injection_data.json"
    path.write_text(json.dumps(records))
    return path


def test_kind_type_and_title_are_read_from_what_is_there(injection: Path) -> None:
    found = list(read_items(str(injection)))
    assert [(i.id, i.kind, i.type, i.title) for i in found] == [
        ("0", "entity", "human", "Ada Lovelace"),
        ("1", "news", "politics", "A bill passed"),
        ("2", "entity", "film", "Given"),
    ]
    assert found[0].image == str(injection.parent / "wikidata_imgs" / "Ada Lovelace_wiki.jpg")
    assert found[0].text == "Ada Lovelace wrote notes."


def test_the_form_is_detected_and_may_be_forced(injection: Path, tmp_path: Path) -> None:
    items = tmp_path / "items.jsonl"
    items.write_text('{"id": "a", "kind": "entity", "type": "x", "title": "A", "text": "t"}\n')
    assert detect(str(injection)) == "evoke" and detect(str(items)) == "items" and detect("-") == "items"
    with pytest.raises(DataError):
        list(read_items(str(items), form="evoke"))


def test_the_image_root_moves_the_pictures(injection: Path, tmp_path: Path) -> None:
    found = next(iter(read_items(str(injection), image_root=tmp_path / "imgs")))
    assert found.image == str(tmp_path / "imgs" / "wikidata_imgs" / "Ada Lovelace_wiki.jpg")


def test_a_bad_record_names_its_place_and_the_rest_goes_on(injection: Path) -> None:
    values = json.loads(injection.read_text())
    values.insert(1, record(7, "x.jpg", "What?", "   "))
    injection.write_text(json.dumps(values))
    bad: list[DataError] = []
    assert len(list(read_items(str(injection), on_error=bad.append))) == 3
    assert f"{injection}[1]" in str(bad[0])
