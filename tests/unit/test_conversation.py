"""Conversations become tensors: labels on the assistant's tokens only, padding never seen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from kore.config.resolve import ModelSection, TrainSection
from kore.data.records import Sample
from kore.errors import DataError
from kore.io.images import check_image, open_image
from kore.methods.registry import make_method
from kore.models.collate import collate
from kore.models.generate import Engine, Prompt
from kore.models.load import load
from kore.models.processing import IGNORED, Encoder
from kore.models.special_tokens import Marks
from kore.training.run import prepare
from tests.tiny import idefics, llava


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


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose template writes no marks, as LLaVA-1.5's."""
    return llava(tmp_path_factory.mktemp("models") / "published", published=True)


def test_marks_that_the_template_leaves_out_are_written_and_the_end_is_learned(
    published: Path, picture: Path
) -> None:
    encoder = Encoder(load(ModelSection(id=str(published))).processor)
    asked = sample(picture, "<image>\nWhat?", "Lima", "Peru?", "Yes No")
    features = encoder.training(asked)
    ids, kept = features["input_ids"], features["labels"] != IGNORED
    question = "<s>USER: " + "<image>" * 4 + "\nWhat? ASSISTANT:"
    whole = question + " Lima</s>USER: Peru? ASSISTANT: Yes No</s>"
    assert encoder.tokenizer.decode(ids) == whole
    assert encoder.tokenizer.decode(ids[kept]) == " Lima</s> Yes No</s>"
    for turns, text in ((1, question), (3, whole.removesuffix(" Yes No</s>"))):
        prompt = encoder.prompt(asked.conversations[:turns], [picture])["input_ids"]
        assert encoder.tokenizer.decode(prompt) == text
        assert torch.equal(ids[: len(prompt)], prompt)  # what is asked is how what was learned begins


def test_an_empty_answer_is_its_end_mark(published: Path, tiny_llava: Path, picture: Path) -> None:
    for folder in (published, tiny_llava):
        encoder = Encoder(load(ModelSection(id=str(folder))).processor)
        features = encoder.training(sample(picture, "<image>\nWhat?", ""))
        assert features["input_ids"][features["labels"] != IGNORED].tolist() == [
            encoder.tokenizer.eos_token_id
        ]


def test_a_template_with_marks_of_its_own_is_left_as_it_is(
    tiny_llava: Path, tiny_qwen: Path, tmp_path: Path, picture: Path
) -> None:
    for name in (str(tiny_llava), str(tiny_qwen), str(idefics(tmp_path / "m")), "kore-tiny"):
        backbone = load(ModelSection(id=name))
        encoder = Encoder(backbone.processor)
        assert encoder.marks == Marks() and "marks" not in backbone.reads
        chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
        chat.append({"role": "assistant", "content": [{"type": "text", "text": "Lima"}]})
        text = backbone.processor.apply_chat_template(chat, tokenize=False)
        own = backbone.processor(
            text=[text], images=[encoder._open(picture, None)], return_tensors="pt", add_special_tokens=False
        )
        made = encoder.training(sample(picture, "<image>\nWhat?", "Lima"))
        assert torch.equal(made["input_ids"], own["input_ids"][0])


def test_inputs_with_marks_are_told_apart_from_those_without(
    published: Path, tiny_llava: Path, picture: Path
) -> None:
    for folder, reads in ((published, {"marks": "<s>...</s>"}), (tiny_llava, {})):
        backbone = load(ModelSection(id=str(folder)))
        assert backbone.reads == reads
        samples = [sample(picture, "<image>\nWhat?", "Lima")]
        work = prepare(backbone, samples, TrainSection(), make_method("lora"))
        assert work.identity.get("marks") == reads.get("marks")  # what a checkpoint is gone on with by


def test_pictures_of_unlike_shapes_are_answered_together_as_alone(tmp_path: Path) -> None:
    backbone = load(ModelSection(id=str(idefics(tmp_path / "m"))))
    paths = []
    for n, size in enumerate([(64, 64), (64, 20), (20, 64)]):
        paths.append(tmp_path / f"{n}.png")
        Image.effect_noise(size, 64).convert("RGB").save(paths[-1])
    prompts = [Prompt.ask("What?", [path]) for path in paths] + [Prompt.ask("Two?", paths[:2])]
    encoder = Encoder(backbone.processor)
    rows = [encoder.prompt(p.turns, p.images) for p in prompts]
    assert len({row["pixel_values"].shape for row in rows}) > 2
    together = Engine(backbone, batch=4, max_new_tokens=8).answer(prompts)
    assert together == Engine(backbone, batch=1, max_new_tokens=8).answer(prompts)
    batch = collate(rows, encoder.pad_id, side="left")
    with torch.no_grad():
        found = backbone.model(**batch).logits[:, -1]
        for row, logits in zip(rows, found, strict=True):
            alone = backbone.model(**collate([row], encoder.pad_id)).logits[0, -1]
            assert torch.allclose(logits, alone, atol=1e-5)


def test_labels_are_placed_where_a_picture_becomes_rows_and_columns(tmp_path: Path, picture: Path) -> None:
    encoder = Encoder(load(ModelSection(id=str(idefics(tmp_path / "m")))).processor)
    features = encoder.training(sample(picture, "<image>\nWhat?", "Lima", "Peru?", "Yes No"))
    kept = features["input_ids"][features["labels"] != IGNORED]
    assert encoder.tokenizer.decode(kept) == " Lima<end_of_utterance> Yes No<end_of_utterance>"


@pytest.mark.parametrize("side", [8000, 10000, 14000])  # from here on Pillow warns, and from there it refuses
def test_a_picture_that_would_fill_the_memory_is_refused_by_its_size(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (side, side)).save(path)
    assert path.stat().st_size < 1 << 20
    for open_ in (open_image, check_image):
        with pytest.raises(DataError, match=r"too large a picture: .*bomb\.png") as caught:
            open_(path, "samples.jsonl:3")
        assert caught.value.where == "samples.jsonl:3" and "pixels" in (caught.value.hint or "")
