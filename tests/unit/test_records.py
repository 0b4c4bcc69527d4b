"""Records: every accepted form reads to the same thing, unknown keys survive, mistakes name their line."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from kore.data.read import read_located, read_records
from kore.data.records import KnowledgeItem, KnowledgeTree, Question, Record, Sample, encode, relative_to
from kore.errors import DataError, DataErrors

ITEM: dict[str, Any] = {
    "id": "n1",
    "kind": "news",
    "type": "film",
    "title": "A title",
    "text": "What happened.",
    "image": "pictures/a.jpg",
}
TURNS = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A film."}]
TREE: dict[str, Any] = {
    "item": ITEM,
    "trunk": [{"question": "q", "answer": "a", "origin": "heuristic", "made": {"by": "offline"}}],
    "branches": [{"task": "recognition", "question": "q", "answer": "Yes", "image": "pictures/b.jpg"}],
}


def write(path: Path, *values: object) -> Path:
    path.write_text("".join(json.dumps(v) + "\n" for v in values), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (KnowledgeItem, {**ITEM, "page": 3}),
        (KnowledgeTree, {**TREE, "score": None, "item": {**ITEM, "page": 3}}),
        (KnowledgeTree, {**TREE, "branches": [{**TREE["branches"][0], "pattern": ["x"], "hypernym": "h"}]}),
        (
            Sample,
            {"id": "1", "image": "a.jpg", "conversations": [{**TURNS[0], "weight": 2}, TURNS[1]], "x": {}},
        ),
        (
            Question,
            {"question_id": "7", "image": "a", "text": "t", "answer": "b", "type": "film", "split": "test"},
        ),
    ],
)
def test_unknown_keys_at_every_level_are_kept_and_written_back(
    kind: type[Record], value: dict[str, Any]
) -> None:
    record = kind.from_json(value)
    again = record.to_json()

    def holds(inner: Any, outer: Any) -> bool:
        if isinstance(inner, dict):
            return all(k in outer and holds(v, outer[k]) for k, v in inner.items())
        if isinstance(inner, list):
            return len(inner) == len(outer) and all(map(holds, inner, outer))
        return bool(inner == outer)

    assert holds(value, again)
    assert "extra" not in json.dumps(again)
    assert kind.from_json(json.loads(json.dumps(again))) == record
    assert encode(kind.from_json(again)) == encode(record)


def test_unknown_keys_are_under_extra() -> None:
    item = KnowledgeItem.from_json({**ITEM, "page": 3, "extra": {"mine": 1}})
    assert item.extra == {"page": 3, "mine": 1}


def test_a_missing_field_is_named_with_the_words_it_takes() -> None:
    value = {name: part for name, part in ITEM.items() if name != "kind"}
    with pytest.raises(DataError, match=r"^items.jsonl:3: kind is missing: one of news, entity$"):
        KnowledgeItem.from_json(value, "items.jsonl:3")


def test_messages_of_openai_read_to_the_same_sample_as_llavas_turns() -> None:
    llava = Sample.from_json({"id": "1", "image": "a.jpg", "conversations": TURNS})
    for content, images in (
        ("<image>\nWhat is it?", {"images": "a.jpg"}),
        ([{"type": "image"}, {"type": "text", "text": "What is it?"}], {"image": "a.jpg"}),
        ([{"type": "image_url", "image_url": {"url": "a.jpg"}}, {"type": "text", "text": "What is it?"}], {}),
        ([{"type": "image", "path": "a.jpg"}, {"type": "text", "text": "What is it?"}], {}),
    ):
        found = Sample.from_json(
            {
                "id": 1,
                "messages": [
                    {"role": "user", "content": content},
                    {"role": "assistant", "content": "A film."},
                ],
                **images,
            }
        )
        assert found.conversations == llava.conversations
        assert found.images == llava.images


def test_a_published_json_list_with_numbers_as_ids_loads_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "KORE-74K-training_data.json"
    path.write_text(
        json.dumps([{"id": i, "image": f"imgs/{i}.jpg", "conversations": TURNS} for i in range(3)])
    )
    samples = list(read_records(Sample, path))
    assert [s.id for s in samples] == ["0", "1", "2"]
    assert samples[2].images == [str(tmp_path / "imgs" / "2.jpg")]
    assert [w for w, _ in read_located(Sample, path)] == [f"{path}[{i}]" for i in range(3)]


def test_relative_pictures_belong_to_the_file_or_the_image_root(tmp_path: Path) -> None:
    path = write(tmp_path / "items.jsonl", ITEM, {**ITEM, "image": ["/abs/b.jpg", "e/c.jpg", "d.jpg"]})
    first, second = read_records(KnowledgeItem, path)
    assert first.images == [str(tmp_path / "pictures/a.jpg")]
    assert second.images == ["/abs/b.jpg", str(tmp_path / "e/c.jpg"), str(tmp_path / "d.jpg")]
    rooted, _ = read_records(KnowledgeItem, path, image_root=Path("/data"))
    assert rooted.images == ["/data/pictures/a.jpg"]


def test_a_tree_anchors_its_item_and_its_branches_and_can_be_made_relative_again(tmp_path: Path) -> None:
    (tree,) = read_records(KnowledgeTree, write(tmp_path / "tree.jsonl", TREE))
    assert tree.item.images == [str(tmp_path / "pictures/a.jpg")]
    assert tree.branches[0].image == str(tmp_path / "pictures/b.jpg")
    assert relative_to(tree, tmp_path) == KnowledgeTree.from_json(TREE)
    assert relative_to(tree, tmp_path / "elsewhere") == tree


def test_standard_input_resolves_pictures_against_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(ITEM).encode())))
    ((where, item),) = read_located(KnowledgeItem, "-")
    assert where == "stdin:1"
    assert item.images == [str(tmp_path / "pictures/a.jpg")]


@pytest.mark.parametrize("image", [None, "", []])
def test_no_picture_may_be_said_in_any_usual_way(image: object) -> None:
    assert KnowledgeItem.from_json({**ITEM, "image": image}).images == []


def test_numbers_as_ids_and_fact_values_are_text() -> None:
    item = KnowledgeItem.from_json({**ITEM, "id": 12, "facts": {"year": 2024, "areas": [1.5, "x"]}})
    assert (item.id, item.facts) == ("12", {"year": "2024", "areas": ["1.5", "x"]})
    assert Question.from_json({"question_id": 3, "text": "t", "answer": ["a", "b"]}).answers == ["a", "b"]


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        (KnowledgeItem, {"kind": "person"}, ["kind", "'news' or 'entity'"]),
        (KnowledgeItem, {"title": " "}, ["title", "must not be empty"]),
        (KnowledgeItem, {"text": 5}, ["text", "valid string"]),
        (KnowledgeItem, {"id": True}, ["id", "valid string"]),
        (KnowledgeItem, {"facts": ["x"]}, ["facts", "valid dictionary"]),
        (KnowledgeItem, {"text": None}, ["text"]),
        (Sample, {"conversations": None}, ["conversations", "valid list"]),
        (Sample, {"conversations": []}, ["starts with a human turn"]),
        (Sample, {"conversations": [TURNS[1]]}, ["starts with a human turn"]),
        (Sample, {"conversations": [TURNS[0], TURNS[0]]}, ["alternate"]),
        (Sample, {"conversations": [{"from": "bot", "value": "x"}]}, ["conversations.0.from"]),
        (Sample, {"conversations": [{"from": "human"}]}, ["conversations.0.value"]),
        (Sample, {"conversations": ["x"]}, ["conversations.0"]),
        (Sample, {"conversations": TURNS, "image": None}, ["1 <image> marks", "0 images"]),
        (Sample, {"messages": 3}, ["messages must be a valid list"]),
        (Sample, {"messages": [{"role": "user", "content": [3]}]}, ["content"]),
        (Sample, {"messages": [{"role": "tool", "content": "x"}]}, ["conversations.0.from"]),
        (Sample, {"messages": ["x"]}, ["conversations.0"]),
    ],
)
def test_a_wrong_record_names_the_line_and_the_field(
    tmp_path: Path, kind: type[Record], change: dict[str, Any], words: list[str]
) -> None:
    good = ITEM if kind is KnowledgeItem else {"id": "1", "image": "a.jpg"}
    path = write(tmp_path / "a.jsonl", {**good, **change})
    with pytest.raises(DataError) as caught:
        list(read_records(kind, path))
    assert caught.value.where == f"{path}:1"
    for word in words:
        assert word in caught.value.message
    assert "\n" not in str(caught.value)


def test_bad_records_can_be_passed_over_and_are_all_told(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        "\n".join([json.dumps(ITEM), "{", "[]", json.dumps({**ITEM, "id": 3, "kind": 1}), json.dumps(ITEM)])
    )
    errors: list[DataError] = []
    assert len(list(read_records(KnowledgeItem, path, on_error=errors.append))) == 2
    assert [e.where for e in errors] == [f"{path}:{i}" for i in (2, 3, 4)]
    listed = tmp_path / "a.json"
    listed.write_text(json.dumps([ITEM, 3, {"id": 1}, ITEM]))
    errors.clear()
    assert len(list(read_records(KnowledgeItem, listed, on_error=errors.append))) == 2
    assert [e.where for e in errors] == [f"{listed}[1]", f"{listed}[2]"]


def test_all_faults_of_a_file_are_one_error_and_no_record_follows_the_first(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([json.dumps(ITEM), "{", json.dumps(ITEM), *["[]"] * 24]) + "\n")
    records = read_records(KnowledgeItem, path)
    assert next(records).id == str(ITEM["id"])
    with pytest.raises(DataErrors) as caught:
        next(records)
    lines = caught.value.lines()
    assert (lines[0], lines[21]) == ("25 faults", "and 5 more")
    assert lines[1].startswith(f"{path}:2: ") and lines[20].startswith(f"{path}:22: ")
    assert caught.value.where == f"{path}:2" and "and 24 more faults" in str(caught.value)


def test_standard_input_without_end_is_read_as_far_as_the_faults_that_are_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            buffer[:3] = b"{}\n"
            return 3

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Endless())))
    with pytest.raises(DataErrors) as caught:
        list(read_records(KnowledgeItem, "-"))
    assert caught.value.count == 20


def test_image_paths_are_written_relative_to_the_file_or_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images = ["out/images/a.png", "b.png", "/d.png"]
    turns = [{"from": "human", "value": "<image>" * 3}]
    sample = Sample.from_json({"id": "1", "image": images, "conversations": turns})
    (tmp_path / "out").mkdir()
    written = relative_to(sample, Path("out"))
    assert written.images == ["images/a.png", str(tmp_path / "b.png"), *images[2:]]
    again = next(read_records(Sample, write(tmp_path / "out" / "s.jsonl", written.to_json())))
    assert again.images[0] == str(tmp_path / "out/images/a.png")
    write(tmp_path / "s.jsonl", sample.to_json())
    rooted = next(read_records(Sample, tmp_path / "s.jsonl", image_root=Path("out")))
    assert rooted.images[1] == str(tmp_path / "out/b.png")


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"])
def test_an_empty_file_is_an_error_not_an_empty_result(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="file is empty"):
        list(read_records(KnowledgeItem, tmp_path / "a.jsonl"))


def test_a_missing_file_and_a_json_file_of_lines_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        list(read_records(KnowledgeItem, tmp_path / "none.jsonl"))
    with pytest.raises(DataError) as caught:
        list(read_records(KnowledgeItem, write(tmp_path / "a.json", ITEM, ITEM)))
    assert "name it .jsonl" in str(caught.value.hint)
    with pytest.raises(DataError, match="expected a JSON list"):
        list(read_records(KnowledgeItem, write(tmp_path / "b.json", ITEM)))
