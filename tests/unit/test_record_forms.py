"""Data sets of every usual form read to the same records; what KORE does not read is refused or reported."""

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

from kore.data.evoke import read_items
from kore.data.read import read_located, read_records
from kore.data.records import KnowledgeItem, Question, Record, Sample, encode
from kore.errors import DataError, DataWarning
from kore.evaluation.agreement import load_agreement
from kore.evaluation.questions import load_questions
from kore.evaluation.text_loss import load_losses
from kore.training.dataset import read_training

TURNS = [{"from": "human", "value": "What is it?"}, {"from": "gpt", "value": "A film."}]
MARKED = [{"from": "human", "value": "<image>\nWhat is it?"}, TURNS[1]]
CHAT = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A film."}]
ITEM: dict[str, Any] = {"id": "a", "kind": "news", "type": "film", "title": "T", "text": "What happened."}
QUESTION: dict[str, Any] = {"question_id": "q", "text": "What is it?", "answer": "A film."}


def write(path: Path, *values: object) -> Path:
    path.write_text("".join(json.dumps(v) + "\n" for v in values), encoding="utf-8")
    return path


def png(folder: Path) -> Path:
    path = folder / "a.png"
    Image.new("RGB", (8, 8), "red").save(path)
    return path


def uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


SHOWN = [
    {"image": "a.png"},
    {"images": ["a.png"]},
    {"images": [{"path": "a.png"}]},
    {"image_path": "a.png"},
    {"image_url": {"url": "a.png"}},
    {"image": "a.png", "images": ["a.png"]},
    {"image": None, "images": ["a.png"]},
    {"image_url": "FILE"},
]


@pytest.mark.parametrize("shown", SHOWN, ids=str)
def test_an_image_is_read_under_every_usual_key(tmp_path: Path, shown: dict[str, Any]) -> None:
    picture = png(tmp_path)
    shown = {k: v if v != "FILE" else picture.as_uri() for k, v in shown.items()}
    for kind, value in ((KnowledgeItem, ITEM), (Question, QUESTION)):
        usual = kind.from_json({**value, "image": str(picture)})
        (record,) = read_records(kind, write(tmp_path / "r.jsonl", {**value, **shown}))
        assert encode(record) == encode(usual)
    usual_sample = Sample.from_json({"id": "1", "image": str(picture), "conversations": MARKED})
    for turns in (
        {"conversations": MARKED},
        {"conversations": TURNS},
        {"messages": CHAT},
        {"conversations": CHAT},
    ):
        (sample,) = read_records(Sample, write(tmp_path / "s.jsonl", {"id": "1", **turns, **shown}))
        assert encode(sample) == encode(usual_sample)


def test_an_image_inside_the_data_is_read_as_its_file_is(tmp_path: Path) -> None:
    picture = png(tmp_path)
    parts = [
        {"type": "image_url", "image_url": {"url": uri(picture)}},
        {"type": "text", "text": "What is it?"},
    ]
    rows = [
        {"image": uri(picture), "conversations": TURNS},
        {"messages": [{"role": "user", "content": parts}, CHAT[1]]},
        {"messages": [{"role": "user", "content": "What is it?", "images": [uri(picture)]}, CHAT[1]]},
    ]
    for one in read_training(write(tmp_path / "s.jsonl", *rows)):
        assert [m.value for m in one.sample.conversations] == [m["value"] for m in MARKED]
        (path,) = one.sample.images
        assert Path(path).read_bytes() == picture.read_bytes()
    (item,) = read_records(KnowledgeItem, write(tmp_path / "i.jsonl", {**ITEM, "image_url": uri(picture)}))
    assert Path(item.images[0]).read_bytes() == picture.read_bytes()


def test_images_of_items_may_be_on_the_web_and_others_not(tmp_path: Path) -> None:
    address = "https://example.com/a.png"
    path = write(tmp_path / "r.jsonl", {**ITEM, "images": [address, "b.png"]})
    (item,) = read_records(KnowledgeItem, path)
    assert item.images == [address, str(tmp_path / "b.png")]
    with pytest.raises(DataError, match="on the web; download it"):
        Question.from_json({**QUESTION, "image_url": {"url": address}})


def test_missing_marks_precede_the_first_human_turn_and_too_many_are_an_error(tmp_path: Path) -> None:
    talk = [
        {"from": "system", "value": "Be brief."},
        *TURNS,
        {"from": "human", "value": "<image>And?"},
        TURNS[1],
    ]
    sample = Sample.from_json({"id": "1", "images": ["a", "b"], "conversations": talk})
    assert [sample.conversations[n].value for n in (1, 3)] == ["<image>\nWhat is it?", "<image>And?"]
    for kind, value in (
        (Sample, {"id": "1", "conversations": MARKED}),
        (Question, {**QUESTION, "text": "<image>?"}),
    ):
        with pytest.raises(DataError, match="1 <image> marks"):
            kind.from_json(value)


@pytest.mark.parametrize("key", ["video", "videos", "audio", "tools"])
def test_contents_that_would_be_lost_are_refused_by_name(tmp_path: Path, key: str) -> None:
    for kind, value in (
        (Sample, {"id": "1", "conversations": TURNS}),
        (KnowledgeItem, ITEM),
        (Question, QUESTION),
    ):
        assert kind.from_json({**value, key: []})
        with pytest.raises(DataError, match=rf"r\.jsonl:1: {key}: not supported"):
            list(read_records(kind, write(tmp_path / "r.jsonl", {**value, key: ["x.mp4"]})))
    part = {"messages": [{"role": "user", "content": [{"type": key, key: "x"}]}, CHAT[1]]}
    with pytest.raises(DataError, match=key):
        Sample.from_json({"id": "1", **part})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": "a.png", "images": ["b.png"]}, "image and images name different images"),
        ({"image": {"height": 3}}, "image: not an image"),
        ({"image": 7}, "image: not an image"),
        ({"image": "data:image/png;base64,a"}, "not base64"),
        ({"image": "data:image/png"}, "expected data:image/TYPE;base64"),
    ],
)
def test_an_image_that_cannot_be_meant_is_an_error(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    for kind, value in (
        (Sample, {"id": "1", "conversations": TURNS}),
        (KnowledgeItem, ITEM),
        (Question, QUESTION),
    ):
        with pytest.raises(DataError, match=words) as caught:
            list(read_records(kind, write(tmp_path / "r.jsonl", {**value, **change})))
        assert caught.value.where == f"{tmp_path / 'r.jsonl'}:1"


def test_unused_keys_are_reported_before_faults_and_in_messages_too(tmp_path: Path) -> None:
    row = {"id": "1", "imgae": "a.png", "conversations": [{**TURNS[0], "weight": 2}, TURNS[1]]}
    path = write(tmp_path / "s.jsonl", {"id": "0", "conversations": TURNS, "suite": "x"}, row, {"id": "2"})
    with (
        pytest.warns(
            DataWarning, match=r"s\.jsonl: keys that are not used: imgae \(did you mean image\?\), weight$"
        ),
        pytest.raises(DataError, match="conversations is missing"),
    ):
        list(read_records(Sample, path))


def test_a_misspelt_field_is_named_beside_the_missing_one() -> None:
    with pytest.raises(DataError, match=r"title is missing \(found titel\)"):
        KnowledgeItem.from_json({k if k != "title" else "titel": v for k, v in ITEM.items()})


def test_a_null_fact_is_left_out_with_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path / "i.jsonl", {**ITEM, "facts": {"capital": None, "area": "3"}})
    with pytest.warns(DataWarning, match=r"i\.jsonl:1: facts without a value are left out: capital"):
        (item,) = read_records(KnowledgeItem, path)
    assert item.facts == {"area": "3"}


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (
            KnowledgeItem,
            {**ITEM, "facts": {"capital": {"a": 1}}},
            "facts.capital: Input should be a valid string or",
        ),
        (KnowledgeItem, {**ITEM, "facts": {"areas": ["a", {}]}}, "facts.areas"),
        (KnowledgeItem, {**ITEM, "title": 3, "text": 4}, r"title: .*\(also at fault: text\)"),
        (Question, {**QUESTION, "answer": {"a": 1}}, "^answer: "),
        (Sample, {"id": "1", "conversations": [{"from": "human"}]}, r"^conversations\.0\.value is missing"),
    ],
)
def test_a_fault_names_the_field_as_the_file_has_it(
    kind: type[Record], value: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        kind.from_json(value)
    assert ".str" not in str(caught.value) and "list[" not in str(caught.value)


def test_samples_and_questions_without_ids_get_one_of_file_and_line(tmp_path: Path) -> None:
    rows = [{"conversations": TURNS}, {"id": "own", "conversations": TURNS}, {"conversations": TURNS}]
    assert [s.id for s in read_records(Sample, write(tmp_path / "s.jsonl", *rows))] == [
        "s.jsonl:1",
        "own",
        "s.jsonl:3",
    ]
    (tmp_path / "l.json").write_text(json.dumps(rows))
    assert [s.id for s in read_records(Sample, tmp_path / "l.json")] == ["l.json[0]", "own", "l.json[2]"]
    bare = {k: v for k, v in QUESTION.items() if k != "question_id"}
    found = read_records(Question, write(tmp_path / "q.jsonl", bare, {**bare, "id": 7}))
    assert [q.question_id for q in found] == ["q.jsonl:1", "7"]


@pytest.mark.parametrize("line", ['{"id": "1", "id": "2"}', '{"id": "1", "facts": {"a": "1", "a": "2"}}'])
def test_a_key_that_occurs_twice_is_an_error(tmp_path: Path, line: str) -> None:
    for name, text in (("a.jsonl", line), ("a.json", f"[{line}]")):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=r"the key '(id|a)' occurs twice"):
            list(read_records(KnowledgeItem, tmp_path / name))


def forms(folder: Path) -> list[Path]:
    """Two items in every form of file."""
    import pyarrow
    from pyarrow import parquet

    rows = [{**ITEM, "id": f"i{n}", "facts": {"year": str(n)}} for n in range(2)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    paths = [
        folder / name
        for name in ("a.jsonl", "bom.jsonl", "crlf.jsonl", "list.jsonl", "list.json", "a.ndjson")
    ]
    texts = [
        lines,
        "\ufeff" + lines,
        lines.replace("\n", "\r\n"),
        "\n" + json.dumps(rows, indent=1),
        json.dumps(rows),
        lines,
    ]
    for path, text in zip(paths, texts, strict=True):
        path.write_bytes(text.encode())
    for path in paths[:2] + paths[4:5]:
        packed = path.with_name(path.name + ".gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        paths.append(packed)
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "a.parquet")
    keys = [k for k in ITEM if k != "facts"]
    for name, mark in (("a.csv", ","), ("semicolon.csv", ";"), ("a.tsv", "\t")):
        table = [mark.join([*keys, "facts.year", "date"])]
        table += [mark.join([*(row[k] for k in keys), row["facts"]["year"], ""]) for row in rows]
        (folder / name).write_text("\n".join(table) + "\n")
        paths.append(folder / name)
    parts = folder / "parts"
    parts.mkdir()
    for number, row in enumerate(rows):
        write(parts / f"train-0000{number}-of-00002.jsonl", row)
    return [*paths, folder / "a.parquet", parts]


def test_every_form_of_file_reads_to_the_same_items(tmp_path: Path) -> None:
    wanted: list[str] = []
    for path in forms(tmp_path):
        found = [encode(item) for item in read_items(str(path))]
        wanted = wanted or found
        assert found == wanted and len(found) == 2, path


def test_an_image_in_a_parquet_file_is_read(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    data = png(tmp_path).read_bytes()
    row = {"images": [{"bytes": data, "path": None}], "conversations": TURNS, "videos": []}
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "a.parquet")
    (one,) = read_training(tmp_path / "a.parquet")
    assert one.sample.id == "a.parquet[0]" and Path(one.sample.images[0]).read_bytes() == data


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.xlsx", b"PK", "Excel files are not read"),
        ("a.jsonl.zst", b"(", "Zstandard files are not read"),
        ("a.zip", b"PK", "zip files are not read"),
        ("a.jsonl.gz", b"\x1f\x8b\x08\0", "cannot unzip"),
        ("a.parquet", b"PAR1 and no more", "not a Parquet file"),
        ("a.csv", b"id,title\n1,2,3\n", "more cells than columns"),
        ("a.csv", b"id,title\n\xff,2\n", "not UTF-8"),
        ("a.jsonl", b'[{"id": 1},\n {"id": ]\n', "not JSON"),
    ],
)
def test_a_file_that_is_not_read_says_why(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=words) as caught:
        list(read_items(str(tmp_path / name)))
    assert str(caught.value.where).startswith(str(tmp_path / name))


def test_a_folder_of_several_data_files_names_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a folder without data files"):
        list(read_items(str(tmp_path)))
    write(tmp_path / "train.jsonl", ITEM)
    assert len(list(read_items(str(tmp_path)))) == 1
    write(tmp_path / "test.jsonl", ITEM)
    with pytest.raises(DataError, match=r"several data files: test\.jsonl, train\.jsonl") as caught:
        list(read_items(str(tmp_path)))
    assert "name one of them" in str(caught.value.hint)


def test_suites_are_read_from_the_same_forms(tmp_path: Path) -> None:
    (tmp_path / "q.json").write_text(json.dumps([QUESTION]))
    assert len(load_questions(tmp_path / "q.json")) == 1
    assert len(load_agreement(tmp_path / "q.json")) == 1
    (tmp_path / "s.json.gz").write_bytes(gzip.compress(json.dumps([{"messages": CHAT}]).encode()))
    assert load_agreement(tmp_path / "s.json.gz").prompts[0].id == "s.json.gz[0]"
    assert load_losses(tmp_path / "s.json.gz").texts[0].id == "s.json.gz[0]"


def test_a_named_pipe_is_read_once_and_given_to_every_reader(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text = json.dumps(ITEM) + "\n"
    writer = threading.Thread(target=lambda: pipe.write_text(text))
    writer.start()
    assert [item.id for item in read_items(str(pipe))] == ["a"]
    writer.join()
    assert [where for where, _ in read_located(KnowledgeItem, pipe)] == [f"{pipe}:1"]


def test_all_faulty_questions_are_listed(tmp_path: Path) -> None:
    rows = [QUESTION, QUESTION, {**QUESTION, "question_id": "b", "answer": " "}, {**QUESTION, "text": 3}]
    with pytest.raises(DataError) as caught:
        load_questions(write(tmp_path / "q.jsonl", *rows))
    assert [line.partition("q.jsonl:")[2][:1] for line in caught.value.lines()] == ["", "2", "3", "4"]
