"""Images that a model's processor refuses are found with their place when the data is checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from kore.config.schema import ModelSection
from kore.data.records import Message
from kore.errors import DataError
from kore.models.image_sizes import check_sizes
from kore.models.load import load_processor
from kore.models.processing import Encoder
from tests.cli.command import kore
from tests.cli.test_inject_inputs import ITEM, write_items

TURNS = [{"from": "human", "value": "What is it?"}, {"from": "gpt", "value": "A line."}]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Samples, questions and items, whose second image is too narrow for Qwen-VL."""
    write_items(tmp_path)
    Image.new("RGB", (1000, 4), "red").save(tmp_path / "line.png")
    images = ("good.png", "line.png")
    rows = {
        "samples": [{"conversations": TURNS, "image": image} for image in images],
        "questions": [{"text": "What?", "answer": "A line.", "image": image} for image in images],
        "items": [{**ITEM, "id": image[0], "image": image} for image in images],
    }
    for name, values in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(value) + "\n" for value in values))
    return tmp_path


@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("train --data samples.jsonl --set train.method=lora --model", "samples.jsonl:2"),
        ("calibrate --samples samples.jsonl --model", "sample samples.jsonl:2"),
        ("inject items.jsonl --suite questions.jsonl:retention --dry-run --model", "items.jsonl:2"),
        ("eval --suite questions.jsonl", "questions.jsonl:2: question questions.jsonl:2"),
    ],
)
def test_a_refused_image_is_named_before_the_model_is_loaded(
    data: Path, tiny_qwen: Path, command: str, place: str
) -> None:
    bare = data / "model"  # without its weights
    bare.mkdir()
    for path in tiny_qwen.iterdir():
        if path.suffix != ".safetensors":
            (bare / path.name).symlink_to(path)
    done = kore(*command.split(), bare, "-o", "out", cwd=data)
    assert done.returncode == 3, done.stderr
    message = f"error: {place}: the model's processor refuses an image of 1000 x 4 pixels: "
    assert message in done.stderr and "aspect ratio" in done.stderr


def test_a_processor_is_loaded_only_for_unusual_sizes(data: Path, tiny_llava: Path, tiny_qwen: Path) -> None:
    def never() -> object:
        raise AssertionError

    check_sizes([(str(data / "good.png"), "a")], never)
    for side in ((1, 1), (1, 40), (40, 1), (3, 3)):
        Image.new("RGB", side).save(data / "small.png")
        for model in (tiny_llava, tiny_qwen):
            check_sizes(
                [(str(data / "small.png"), "a")],
                lambda model=model: load_processor(model, ModelSection(id="x")),
            )  # type: ignore[misc]


def test_an_image_refused_while_it_is_encoded_is_a_data_error(data: Path, tiny_qwen: Path) -> None:
    encoder = Encoder(load_processor(tiny_qwen, ModelSection(id="x")))

    turn = Message.from_json({"from": "human", "value": "<image>What?"})
    with pytest.raises(DataError, match="sample x: the model's processor refuses an image of 1000 x 4"):
        encoder.prompt([turn], [data / "line.png"], "x")
