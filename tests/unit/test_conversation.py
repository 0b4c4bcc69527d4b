"""Conversations become tensors: labels on the assistant's tokens only, padding never seen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from kore.errors import DataError
from kore.models.conversation import IGNORED, Encoder, check_image, collate, open_image
from kore.models.load import load
from kore.profile import ModelSection
from kore.records import Sample


def sample(image: Path, *turns: str) -> Sample:
    roles = ["human", "gpt"] * len(turns)
    return Sample.from_json(
        {
            "id": "s",
            "image": str(image),
            "conversations": [{"from": r, "value": v} for r, v in zip(roles, turns, strict=False)],
        }
    )


def test_labels_cover_exactly_the_replies_and_their_end_marks(tiny_llava: Path, picture: Path) -> None:
    encoder = Encoder(load(ModelSection(id=str(tiny_llava))).processor)
    features = encoder.training(sample(picture, "<image>\nWhat is the capital?", "Lima", "Peru?", "Yes No"))
    kept = features["labels"] != IGNORED
    assert torch.equal(features["labels"][kept], features["input_ids"][kept])
    assert encoder.tokenizer.decode(features["input_ids"][kept]) == " Lima</s> Yes No</s>"
    assert int((features["input_ids"] == encoder.processor.image_token_id).sum()) == 4


def test_a_prompt_ends_with_the_open_generation_prompt(tiny_llava: Path, picture: Path) -> None:
    encoder = Encoder(load(ModelSection(id=str(tiny_llava))).processor)
    turns = sample(picture, "<image>\nWhat?").conversations
    ids = encoder.prompt(turns, [picture])["input_ids"]
    assert encoder.tokenizer.decode(ids).endswith("ASSISTANT:")


def test_too_long_and_missing_pictures_name_the_sample(
    tiny_llava: Path, picture: Path, tmp_path: Path
) -> None:
    processor = load(ModelSection(id=str(tiny_llava))).processor
    with pytest.raises(DataError, match=r"sample s: .* more than max_length 16"):
        Encoder(processor, max_length=16).training(sample(picture, "<image>\nWhat is the capital?", "Lima"))
    with pytest.raises(DataError, match="no such picture"):
        Encoder(processor).training(sample(tmp_path / "none.png", "<image>\nWhat?", "Lima"))


def test_collating_pads_on_the_asked_side() -> None:
    rows = [
        {"input_ids": torch.arange(n), "labels": torch.arange(n), "pixel_values": torch.ones(1, 3)}
        for n in (2, 3)
    ]
    left = collate(rows, 9, side="left")
    assert left["input_ids"].tolist() == [[9, 0, 1], [0, 1, 2]]
    assert left["labels"][0, 0] == IGNORED
    assert collate(rows, 9)["input_ids"].tolist() == [[0, 1, 9], [0, 1, 2]]
    assert left["pixel_values"].shape == (2, 3)


@pytest.mark.parametrize("side", [8000, 10000, 14000])  # from here on Pillow warns, and from there it refuses
def test_a_picture_that_would_fill_the_memory_is_refused_by_its_size(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (side, side)).save(path)
    assert path.stat().st_size < 1 << 20
    for open_ in (open_image, check_image):
        with pytest.raises(DataError, match=r"too large a picture: .*bomb\.png") as caught:
            open_(path, "samples.jsonl:3")
        assert caught.value.where == "samples.jsonl:3" and "pixels" in (caught.value.hint or "")
