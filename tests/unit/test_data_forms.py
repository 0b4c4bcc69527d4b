"""The forms in which people's files name images and conversations, and the files that hold records."""

from __future__ import annotations

import base64
import gzip
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kore.data.read import read_located, read_records
from kore.data.records import KnowledgeItem, Question, Record, Sample
from kore.errors import DataError, DataWarning
from kore.io.images import open_image
from tests.cli.command import kore

ITEM = {"id": "a", "kind": "entity", "type": "city", "title": "Lima", "text": "Lima is a city."}
TURNS = [{"from": "human", "value": "Which city?"}, {"from": "gpt", "value": "Lima"}]
QUESTION = {"question_id": "q", "text": "Which city?", "answer": "Lima"}
CHAT = [{"role": "user", "content": "Which city?"}, {"role": "assistant", "content": "Lima"}]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (9, 7), (200, 10, 10)).save(tmp_path / "a.png")
    return tmp_path


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


@pytest.mark.parametrize("key", ["image", "images", "image_path", "image_url"])
@pytest.mark.parametrize(
    ("kind", "record"),
    [(KnowledgeItem, ITEM), (Sample, {"id": "s", "conversations": TURNS}), (Question, QUESTION)],
)
def test_every_name_of_an_image_is_read(
    folder: Path, key: str, kind: type[Record], record: dict[str, Any]
) -> None:
    for value in ("a.png", ["a.png"], {"url": "a.png"}, [{"path": "a.png"}], {"image_url": {"url": "a.png"}}):
        (read,) = read_records(kind, write(folder / "x.jsonl", {**record, key: value}))
        assert read.images == [str(folder / "a.png")]  # type: ignore[attr-defined]
        assert not read.extra


@pytest.mark.parametrize(
    ("kind", "record"),
    [(KnowledgeItem, ITEM), (Sample, {"id": "s", "conversations": TURNS}), (Question, QUESTION)],
)
def test_a_data_uri_is_the_image_itself(folder: Path, kind: type[Record], record: dict[str, Any]) -> None:
    (read,) = read_records(kind, write(folder / "x.jsonl", {**record, "image": uri(folder / "a.png")}))
    (path,) = read.images  # type: ignore[attr-defined]
    assert Path(path).read_bytes() == (folder / "a.png").read_bytes()
    assert open_image(path).getpixel((0, 0)) == (200, 10, 10)


def test_missing_marks_stand_before_the_first_human_turn(folder: Path) -> None:
    system = {"from": "system", "value": "Be brief."}
    for turns in (TURNS, [system, *TURNS]):
        (sample,) = read_records(
            Sample,
            write(folder / "x.jsonl", {"id": "s", "conversations": turns, "images": ["a.png", "a.png"]}),
        )
        human = next(turn for turn in sample.conversations if turn.from_ == "human")
        assert human.value == "<image>\n<image>\nWhich city?"
    marked = [{"from": "human", "value": "Here: <image> Which?"}, TURNS[1]]
    (sample,) = read_records(
        Sample, write(folder / "x.jsonl", {"id": "s", "conversations": marked, "image": "a.png"})
    )
    assert sample.conversations[0].value == "Here: <image> Which?"
    with pytest.raises(DataError, match="1 <image> marks in the text for 0 images"):
        list(read_records(Sample, write(folder / "x.jsonl", {"id": "s", "conversations": marked})))


@pytest.mark.parametrize("key", ["messages", "conversations"])
def test_messages_with_roles_and_parts_are_conversations(folder: Path, key: str) -> None:
    parts = [{"type": "image_url", "image_url": {"url": "a.png"}}, {"type": "text", "text": "Which city?"}]
    messages = [{"role": "user", "content": parts}, CHAT[1]]
    (sample,) = read_records(Sample, write(folder / "x.jsonl", {"id": "s", key: messages}))
    assert sample.images == [str(folder / "a.png")]
    assert [turn.value for turn in sample.conversations] == ["<image>\nWhich city?", "Lima"]
    bare = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}, CHAT[1]]
    (sample,) = read_records(Sample, write(folder / "x.jsonl", {"id": "s", key: bare, "images": ["a.png"]}))
    assert sample.images == [str(folder / "a.png")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video": "a.mp4"}, "video: not supported"),
        ({"audio": ["a.wav"], "tools": [{}]}, "audio and tools: not supported"),
        ({"image": "a.png", "images": ["b.png"]}, "image and images name different images"),
        ({"image": "https://example.com/a.png"}, "is on the web; download it"),
        ({"image": {"size": 3}}, "image: not an image"),
        ({"image": "data:text/plain;base64,AAAA"}, "expected data:image/TYPE;base64"),
        (
            {"conversations": [{"role": "user", "content": [{"type": "video", "video": "a"}]}, CHAT[1]]},
            "'video'",
        ),
        ({"conversations": [{**CHAT[0], "tool_calls": [{}]}, CHAT[1]]}, "tool_calls: not supported"),
    ],
)
def test_what_would_be_lost_is_refused_with_its_place(
    folder: Path, change: dict[str, Any], message: str
) -> None:
    path = write(
        folder / "x.jsonl", {"id": "s", "conversations": TURNS}, {"id": "t", "conversations": TURNS, **change}
    )
    with pytest.raises(DataError, match=message) as caught:
        list(read_records(Sample, path))
    assert f"{path}:2" in str(caught.value)


def test_a_key_that_no_field_takes_is_reported_once_a_file_with_what_was_perhaps_meant(folder: Path) -> None:
    rows = [{**ITEM, "id": str(n), "titel": "x", "colour": "red"} for n in range(3)]
    with pytest.warns(DataWarning) as caught:
        list(read_records(KnowledgeItem, write(folder / "x.jsonl", *rows)))
    (warning,) = caught
    assert str(warning.message).endswith("keys that are not used: titel (did you mean title?), colour")


def test_the_command_prints_it_as_one_line(folder: Path) -> None:
    write(folder / "items.jsonl", {**ITEM, "fact": {"river": "Rimac"}})
    done = kore("augment", "items.jsonl", "--dry-run", cwd=folder)
    lines = [line for line in done.stderr.splitlines() if "not used" in line]
    assert lines == ["warning: items.jsonl: keys that are not used: fact (did you mean facts?)"]


def test_a_sample_without_an_id_is_named_by_its_place(folder: Path) -> None:
    path = write(folder / "x.jsonl", {"conversations": TURNS}, {"id": None, "conversations": TURNS})
    assert [sample.id for sample in read_records(Sample, path)] == ["x.jsonl:1", "x.jsonl:2"]
    question = {k: v for k, v in QUESTION.items() if k != "question_id"}
    assert [q.question_id for q in read_records(Question, write(path, question))] == ["x.jsonl:1"]


def test_a_repeated_key_is_an_error(folder: Path) -> None:
    (folder / "x.jsonl").write_text('{"id": "a", "id": "b", "conversations": []}\n')
    with pytest.raises(DataError, match="the key 'id' occurs twice") as caught:
        list(read_records(Sample, folder / "x.jsonl"))
    assert "x.jsonl:1" in str(caught.value)


def test_a_fact_without_a_value_is_left_out_and_a_wrong_one_named_by_its_key(folder: Path) -> None:
    (item,) = read_records(KnowledgeItem, write(folder / "x.jsonl", {**ITEM, "facts": {"a": None, "b": 3}}))
    assert item.facts == {"b": "3"}
    with pytest.raises(DataError, match=r"facts\.a: ") as caught:
        list(read_records(KnowledgeItem, write(folder / "x.jsonl", {**ITEM, "facts": {"a": {}}})))
    assert "facts.a.str" not in str(caught.value)


def test_records_are_read_from_lists_archives_tables_and_folders(folder: Path) -> None:
    rows = [{"id": str(n), "conversations": TURNS, "image": "a.png"} for n in range(3)]
    parts = folder / "parts"
    parts.mkdir()
    Image.new("RGB", (4, 4)).save(parts / "a.png")
    (folder / "list.jsonl").write_text(json.dumps(rows))
    with gzip.open(folder / "rows.jsonl.gz", "wt") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    write(parts / "train-1.jsonl", rows[0])
    write(parts / "train-2.jsonl", *rows[1:])
    for source in ("list.jsonl", "rows.jsonl.gz", "parts"):
        read = list(read_records(Sample, folder / source))
        assert [sample.id for sample in read] == ["0", "1", "2"]
        assert all(Path(image).is_file() for sample in read for image in sample.images)
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="a folder without"):
        list(read_records(Sample, folder / "empty"))
    (folder / "x.jsonl.gz").write_bytes((folder / "rows.jsonl.gz").read_bytes()[:-9])
    with pytest.raises(DataError, match="cannot unzip"):
        list(read_records(Sample, folder / "x.jsonl.gz"))


def test_parquet_rows_are_records_with_their_images(folder: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    image = {"bytes": (folder / "a.png").read_bytes(), "path": "a.png"}
    table = pyarrow.Table.from_pylist([{"id": str(n), "messages": CHAT, "images": [image]} for n in range(2)])
    parquet.write_table(table, folder / "x.parquet")
    read = dict(read_located(Sample, folder / "x.parquet"))
    assert list(read) == [f"{folder / 'x.parquet'}[{n}]" for n in range(2)]
    assert open_image(read[f"{folder / 'x.parquet'}[0]"].images[0]).size == (9, 7)
    (folder / "y.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="not a Parquet file"):
        list(read_records(Sample, folder / "y.parquet"))


def test_a_named_pipe_is_read_like_standard_input(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    writer = threading.Thread(target=lambda: write(folder / "pipe", {**ITEM, "image": "a.png"}))
    writer.start()
    (item,) = read_records(KnowledgeItem, folder / "pipe")
    writer.join()
    assert item.images == [str(folder / "a.png")]
