"""Damaged and odd inputs end in success or in a KoreError with its place; equivalent ones give equal results.

Each case is a valid input, mutated by a seed that a failure names.
"""

from __future__ import annotations

import base64
import copy
import gzip
import io
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from kore.artifacts.events import EventTail, EventWriter
from kore.artifacts.manifest import Manifest, read_manifest
from kore.artifacts.resolve_target import resolve_target
from kore.artifacts.run import Run, RunState
from kore.augment.inputs import read_checked
from kore.data.evoke import read_items
from kore.data.read import read_records
from kore.data.records import KnowledgeItem, Question, Sample, encode
from kore.errors import KoreError
from kore.evaluation.agreement import load_agreement
from kore.evaluation.questions import load_questions
from kore.evaluation.text_loss import load_losses
from kore.io.images import open_image
from kore.llm.client import Client
from kore.llm.request import Busy, NoReply, Refused, Request
from kore.training.dataset import read_training

pytestmark = pytest.mark.slow
SEEDS = st.integers(0, 2**48)
ITEM: dict[str, Any] = {
    "id": "a",
    "kind": "entity",
    "type": "country",
    "title": "Peru",
    "text": "Its capital is Lima. It lies in South America.",
    "facts": {"capital": "Lima", "areas": ["coast", "andes"]},
    "image": "good.png",
    "date": "2024-01-01",
}
SAMPLE: dict[str, Any] = {
    "id": "s",
    "image": ["good.png"],
    "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "Lima."}],
}
CHAT: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "image", "image": "good.png"}, {"type": "text", "text": "What?"}],
        },
        {"role": "assistant", "content": "Lima."},
    ]
}
QUESTION: dict[str, Any] = {
    "question_id": "q",
    "image": "good.png",
    "text": "What?",
    "answer": ["Lima", "Peru"],
}
KEYS = (
    "image",
    "images",
    "image_url",
    "video",
    "tools",
    "extra",
    "id",
    "text",
    "facts",
    "messages",
    "from",
    "value",
)
ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        0,
        -1,
        1e308,
        2**70,
        "",
        " ",
        [],
        {},
        [[]],
        [None],
        {"a": None},
        "none.png",
        ["good.png", ""],
    ),
    *(
        "<image>",
        "<image><image>",
        "\x00",
        "\u2028",
        "\ufffe",
        "\x1b]0;x\x07",
        "é" * 5000,
        "data:image/png;base64,AAAA",
    ),
    *(
        "data:,",
        "file:///",
        "http://[",
        "../good.png",
        {"url": "good.png"},
        {"bytes": "x"},
        ".",
        "good.png\x00",
    ),
)


def cases(count: int) -> Callable[[Any], Any]:
    """Run a test with this many seeds, the same ones each time."""
    chosen = settings(
        max_examples=count,
        deadline=30_000,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    return lambda test: chosen(given(seed=SEEDS)(test))


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a value with each of its keys."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in list(inner):
        yield value, key
        yield from places(part)


def mutated(value: Any, dice: random.Random) -> Any:
    """A copy of a JSON value with one to three changes."""
    value = json.loads(json.dumps(value))
    for _ in range(dice.randint(1, 3)):
        found = list(places(value))
        if not found:
            break
        holder, key = dice.choice(found)
        change = dice.randrange(5)
        if change == 0:
            del holder[key]
        elif change == 1:
            holder[key] = copy.deepcopy(dice.choice(ODD))
        elif change == 2:
            holder[key] = [holder[key]]
        elif change == 3 and isinstance(holder, dict):
            holder[dice.choice(KEYS)] = holder.pop(key)
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        else:
            holder[dice.choice(KEYS)] = copy.deepcopy(dice.choice(ODD))
    return value


def damaged(data: bytes, dice: random.Random) -> bytes:
    """A copy of bytes, cut, with bytes changed, taken out or put in."""
    array = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(len(array) + 1)
        change = dice.randrange(5)
        if change == 0:
            del array[place:]
        elif change == 1 and place < len(array):
            array[place] = dice.randrange(256)
        elif change == 2:
            del array[place : place + dice.randint(1, 9)]
        elif change == 3:
            array[place:place] = dice.randbytes(dice.randint(1, 9))
        else:
            array[place:place] = dice.choice(
                [b'"', b"{", b"}", b"[", b"\n", b"\xff", b"\xef\xbb\xbf", b"\\ud800", b"NaN"]
            )
    return bytes(array)


def settled(work: Callable[[], object], place: str) -> None:
    """Run `work`: it succeeds, or ends with a KoreError that names the place."""
    try:
        work()
    except KoreError as error:
        text = "\n".join(error.lines())
        assert place in text, text
        assert len(text) < 12_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the image that the records name."""
    made = tmp_path_factory.mktemp("fuzz")
    Image.effect_noise((40, 30), 64).convert("RGB").save(made / "good.png")
    return made


READERS: dict[str, tuple[tuple[dict[str, Any], ...], tuple[Callable[[Path], object], ...]]] = {
    "items": ((ITEM,), (lambda path: list(read_items(str(path))), lambda path: read_checked(str(path)))),
    "samples": ((SAMPLE, CHAT), (read_training, load_agreement, load_losses)),
    "questions": ((QUESTION,), (load_questions, load_agreement)),
}


@pytest.mark.parametrize("kind", READERS)
def test_mutated_records(folder: Path, kind: str) -> None:
    valid, readers = READERS[kind]

    @cases(1500)
    def check(seed: int) -> None:
        dice = random.Random(seed)
        rows = [mutated(dice.choice(valid), dice), dice.choice(valid)]
        text = "".join(json.dumps(row, ensure_ascii=dice.random() < 0.5) + "\n" for row in rows).encode(
            "utf-8", "replace"
        )
        path = folder / f"{kind}.jsonl"
        path.write_bytes(damaged(text, dice) if dice.random() < 0.4 else text)
        for read in readers:
            settled(lambda read=read: read(path), path.name)  # type: ignore[misc]

    check()


@pytest.mark.parametrize("form", ["json", "jsonl.gz", "csv", "tsv", "parquet"])
def test_damaged_files(folder: Path, form: str) -> None:
    path = folder / f"table.{form}"
    flat = {k: v for k, v in ITEM.items() if k != "facts"}
    if form == "parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist([ITEM, {**ITEM, "id": "b"}]), path)
        data = path.read_bytes()
    elif form in ("csv", "tsv"):
        mark = "," if form == "csv" else "\t"
        data = (
            mark.join([*flat, "facts.a"]) + "\n" + mark.join([*map(str, flat.values()), "b"]) + "\n"
        ).encode()
    else:
        lines = json.dumps([ITEM]) if form == "json" else json.dumps(ITEM) + "\n"
        data = gzip.compress(lines.encode()) if form.endswith("gz") else lines.encode()

    @cases(500)
    def check(seed: int) -> None:
        path.write_bytes(damaged(data, random.Random(seed)))
        settled(lambda: list(read_items(str(path))), path.name)

    check()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "ICO"])
def test_damaged_images(folder: Path, form: str) -> None:
    stream = io.BytesIO()
    image = Image.open(folder / "good.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(stream, form, **({"exif": exif} if form in ("PNG", "JPEG", "WEBP", "TIFF") else {}))
    path = folder / f"damaged.{form.lower()}"

    @cases(450)
    def check(seed: int) -> None:
        path.write_bytes(damaged(stream.getvalue(), random.Random(seed)))

        def work() -> None:
            assert open_image(path, "samples.jsonl:1").mode == "RGB"

        settled(work, "samples.jsonl:1: ")

    check()


def test_damaged_run_folders(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    with EventWriter(run.folder) as events:
        events.write("step", step=1, steps=2, loss=1.0)
    run.write(RunState("finished", "kore", ["kore", "train"], {"model": {"id": "kore-tiny"}}))
    Manifest("run", {"train": {"lr": 1}}, {"data": "x"}, {"data": "y"}).write(run.folder)
    run.adapter.mkdir()
    (run.adapter / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "kore-tiny", "r": 2})
    )
    (run.adapter / "kore.json").write_text(json.dumps({"v": 1, "base": {"name": "kore-tiny"}}))
    whole = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}

    @cases(1500)
    def check(seed: int) -> None:
        dice = random.Random(seed)
        path, data = dice.choice(list(whole.items()))
        if dice.random() < 0.5 and path.suffix == ".json":
            data = json.dumps(mutated(json.loads(data), dice)).encode()
        else:
            data = damaged(data, dice)
        path.write_bytes(data)
        try:
            settled(lambda: run.state(), run.folder.name)
            settled(lambda: read_manifest(run.folder), run.folder.name)
            settled(lambda: resolve_target(str(run.folder)), run.folder.name)
            assert all(isinstance(event, dict) for event in EventTail(run.folder).read())
        finally:
            path.write_bytes(whole[path])

    check()


def test_damaged_adapters(tmp_path: Path, tiny_llava: Path) -> None:
    from kore.config.resolve import ModelSection
    from kore.methods.load_adapter import load_adapter
    from kore.models.load import load
    from tests.unit.test_broken_weights import saved as save

    saved = save(tiny_llava, tmp_path / "adapter")
    whole = {path: path.read_bytes() for path in saved.rglob("*") if path.is_file()}

    @cases(400)
    def check(seed: int) -> None:
        dice = random.Random(seed)
        path, data = dice.choice(list(whole.items()))
        choice = dice.random()
        if choice < 0.1:
            path.unlink()
        elif choice < 0.6 and path.suffix == ".json":
            path.write_text(json.dumps(mutated(json.loads(data), dice)))
        else:
            path.write_bytes(damaged(data, dice))
        fresh = load(ModelSection(id=str(tiny_llava)))
        try:
            settled(lambda: load_adapter(fresh, saved), str(saved))
        finally:
            path.write_bytes(whole[path])

    check()


@cases(1500)
def test_damaged_server_replies(seed: int) -> None:
    dice = random.Random(seed)
    answer = {
        "choices": [
            {"message": {"role": "assistant", "content": "yes", "refusal": None}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
    }
    client = Client("m", base_url="http://127.0.0.1:9/v1")
    try:
        reply = client._read(mutated(answer, dice), Request(({"role": "user", "content": "?"},)))
    except (KoreError, Busy, NoReply, Refused) as error:
        assert str(error)
    else:
        assert reply.text.strip() and reply.tokens_in >= 0 and reply.tokens_out >= 0


@cases(600)
@example(seed=0)
def test_equivalent_records_read_alike(seed: int) -> None:
    dice = random.Random(seed)
    stem = Path(f"/data/{dice.randrange(1000)}.png")
    shown = dice.choice(
        [
            {"image": str(stem)},
            {"images": [str(stem)]},
            {"image_url": {"url": stem.as_uri()}},
            {"image_path": str(stem)},
        ]
    )
    bare = {k: v for k, v in QUESTION.items() if k != "image"}
    assert encode(Question.from_json({**bare, **shown})) == encode(
        Question.from_json({**bare, "image": str(stem)})
    )
    item = {k: v for k, v in ITEM.items() if k != "image"}
    assert encode(KnowledgeItem.from_json({**item, **shown})) == encode(
        KnowledgeItem.from_json({**item, "image": str(stem)})
    )
    words = dice.choice(["What?", "<image>\nWhat?"])
    turns = dice.choice(
        [
            {"conversations": [{"from": "human", "value": words}, {"from": "gpt", "value": "Lima."}]},
            {"messages": [{"role": "user", "content": words}, {"role": "assistant", "content": "Lima."}]},
        ]
    )
    usual = Sample.from_json({**SAMPLE, "image": str(stem)})
    assert encode(Sample.from_json({"id": "s", **turns, **shown})) == encode(usual)


def test_equivalent_files_and_images_read_alike(folder: Path) -> None:
    @cases(400)
    def check(seed: int) -> None:
        dice = random.Random(seed)
        image = Image.effect_noise((dice.randint(2, 40), dice.randint(2, 40)), 90).convert("RGB")
        turned = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270, 3: Image.Transpose.ROTATE_180}
        orientation, step = dice.choice(list(turned.items()))
        exif = Image.Exif()
        exif[0x0112] = orientation
        stream = io.BytesIO()
        image.transpose(step).save(stream, "PNG", exif=exif)
        assert open_image(stream.getvalue()).tobytes() == image.tobytes()
        mask = Image.effect_noise(image.size, 90).point(lambda value: 255 * (value > 127))
        clear = image.copy()
        clear.putalpha(mask)
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=mask)
        assert open_image(clear).tobytes() == white.tobytes()
        inline = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
        lines = json.dumps({**SAMPLE, "image": inline}) + "\n"
        (folder / "a.jsonl").write_text(lines)
        (folder / "b.jsonl").write_bytes(b"\xef\xbb\xbf" + lines.replace("\n", "\r\n").encode())
        (one,), (other,) = (list(read_records(Sample, folder / name)) for name in ("a.jsonl", "b.jsonl"))
        assert encode(one) == encode(other)
        assert open_image(one.images[0]).tobytes() == image.tobytes()

    check()
    shutil.rmtree(folder / "nothing", ignore_errors=True)
