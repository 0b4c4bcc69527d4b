"""The embedded base: loads quietly, knows old facts and not the new ones, and its data is complete."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

import kore.demo
from kore.config.schema import ModelSection
from kore.data.records import Message
from kore.demo.archive import demo_data
from kore.io.files import hash_file
from kore.models.load import load_processor
from kore.models.processing import to_chat
from scripts.tiny_base import gates, network
from scripts.tiny_base.dataset import MORE, SUITES, open_picture, read_lines
from scripts.tiny_base.drills import LENGTH, PAIRS, ROUNDS, repeat, same
from scripts.tiny_base.tokens import Encoder
from scripts.tiny_base.world import Turn

HOME = Path(kore.demo.__file__).parent
BASE, DATA = HOME / "base", demo_data()
# with which the base was trained: parts in the given order, a system message as the user's
FIRST_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}ASSISTANT:{% generation %} "
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}</s>{% endgeneration %}"
    "{% else %}USER: {% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %} {% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


@pytest.fixture(scope="module")
def base() -> tuple[Any, Any]:
    """Model and processor of the package."""
    torch.set_num_threads(2)
    return network.load_base(BASE)


def test_loading_says_nothing(base: tuple[Any, Any], capsys: pytest.CaptureFixture[str]) -> None:
    _, processor = network.load_base(BASE)
    assert type(processor).__name__ == "LlavaProcessor"
    assert "arn" not in capsys.readouterr().err


def test_weights_are_half_precision_and_small() -> None:
    assert (BASE / "model.safetensors").stat().st_size <= 30 * 2**20
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) <= 8 * 2**20
    about = json.loads((BASE / "kore_base.json").read_text(encoding="utf-8"))
    assert about["name"] == "kore-tiny"
    assert about["met"] == gates.verdicts(about["measured"]) and all(about["met"].values())
    assert about["weights"] == hash_file(BASE / "model.safetensors")


def test_template_equals_the_training_format(base: tuple[Any, Any]) -> None:
    tokenizer = base[1].tokenizer
    talk = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Peru"}]},
        {"role": "user", "content": "What is its capital?"},
    ]
    text = base[1].apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
    assert text == ("USER: <image>\nWhat is this? ASSISTANT: Peru</s>USER: What is its capital? ASSISTANT:")
    out = tokenizer.apply_chat_template(talk, return_dict=True, return_assistant_tokens_mask=True)
    told = [i for i, mark in zip(out["input_ids"], out["assistant_masks"], strict=True) if mark]
    assert tokenizer.decode(told) == " Peru</s>"


def test_images_come_first_and_a_system_message_is_a_plain_prefix(
    base: tuple[Any, Any], tiny_llava: Path
) -> None:
    """As the templates of published LLaVA checkpoints render them."""
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image"}]
    system = {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    for processor in (base[1], load_processor(tiny_llava, ModelSection(id=str(tiny_llava)))):
        for order in (parts, parts[::-1]):
            talk = [system, {"role": "user", "content": order}]
            text = processor.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
            assert text == "Be brief. USER: <image>\nWhat is this? ASSISTANT:"


def test_the_demos_prompts_render_as_with_the_first_template(base: tuple[Any, Any]) -> None:
    tokenizer = base[1].tokenizer
    rows = [row["conversations"] for row in read_lines(DATA / "old.jsonl")][::10]
    rows += [
        [{"from": "human", "value": f"<image>\n{row['text']}" if row.get("image") else row["text"]}]
        for path in sorted((DATA / "suites").glob("*.jsonl"))
        for row in read_lines(path)[::10]
    ]
    assert len(rows) > 100
    for row in rows:
        talk = to_chat([Message.model_validate(turn) for turn in row])
        now, before = (
            tokenizer.apply_chat_template(
                talk, chat_template=template, add_generation_prompt=len(talk) % 2 == 1, tokenize=False
            )
            for template in (None, FIRST_TEMPLATE)
        )
        assert now == before


@pytest.mark.parametrize("text", ["naïve 東京 🦊", "<0x41>", "a\nb\tc", "Lima's  A-B (c) 3.14"])
def test_any_text_survives_the_tokenizer(base: tuple[Any, Any], text: str) -> None:
    tokenizer = base[1].tokenizer
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids, skip_special_tokens=True) == text  # as answers are read


def test_any_picture_becomes_sixteen_tokens(base: tuple[Any, Any]) -> None:
    out = base[1](
        text="USER: <image>\nHi ASSISTANT:", images=Image.new("RGB", (301, 97)), return_tensors="pt"
    )
    assert int((out["input_ids"] == base[1].tokenizer.convert_tokens_to_ids("<image>")).sum()) == 16
    assert out["pixel_values"].shape == (1, 3, 64, 64)


def test_new_countries_are_in_no_old_file() -> None:
    titles = [item["title"] for item in read_lines(DATA / "items.jsonl")]
    assert len(titles) == 24
    for row in read_lines(DATA / "suites" / "countries.jsonl"):
        assert not any(title in row["text"] or title == row["answer"] for title in titles)
    for row in read_lines(DATA / "old.jsonl"):
        if row["suite"] == "countries":
            assert not any(title in turn["value"] for turn in row["conversations"] for title in titles)


def test_every_picture_of_the_data_opens() -> None:
    for item in read_lines(DATA / "items.jsonl"):
        assert open_picture(DATA, item["image"]) is not None
        for k in range(MORE):
            assert open_picture(DATA, f"images_more/{item['title']} {k + 1}.png") is not None
    rows = [(DATA, row.get("image")) for row in read_lines(DATA / "old.jsonl")]
    for suite in SUITES:
        rows += [(DATA / "suites", row["image"]) for row in read_lines(DATA / "suites" / f"{suite}.jsonl")]
    assert all((folder / image).exists() for folder, image in rows if image)
    for folder, image in random.Random(0).sample(rows, 60):
        open_picture(folder, image)


def test_yes_and_no_are_balanced() -> None:
    for suite in ("yes-no", "easy-vqa", "countries"):
        told = [row["answer"] for row in read_lines(DATA / "suites" / f"{suite}.jsonl")]
        assert abs(told.count("Yes") - told.count("No")) <= 6


@pytest.mark.slow
def test_gates_on_a_sample(base: tuple[Any, Any]) -> None:
    measured = gates.measure(*base, DATA, sample=60)
    assert all(gates.verdicts(measured).values()), measured


def test_a_comparison_says_its_reason_first() -> None:
    assert Turn("Is this Peru?", "No", "name-yes-no", "Norway").spoken == "Norway, so no"
    assert Turn("Which?\nA. Peru\nB. Norway", "B", "country-choice", "Norway").spoken == "Norway"


def test_drills_label_only_what_follows_from_the_text(base: tuple[Any, Any]) -> None:
    encoder = Encoder(base[1].tokenizer)
    world = SimpleNamespace(
        words=["Oslo", "Rome"], sample_words=lambda n, rng: rng.sample(["Oslo", "Rome"], n)
    )
    ids, labels = repeat(world, encoder, random.Random(0))
    told = [k for k, label in enumerate(labels) if label != -100]
    assert all(ids[k] == labels[k] for k in told) and len(told) == ROUNDS * LENGTH
    assert ids[1 : 1 + LENGTH] == ids[told[0] : told[0] + LENGTH]
    ids, labels = same(world, encoder, random.Random(0))
    verdicts = base[1].tokenizer.decode([label for label in labels if label != -100]).split()
    assert len(verdicts) == PAIRS and set(verdicts) == {"yes", "no"}
