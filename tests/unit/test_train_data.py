"""What is trained on: which tokens carry loss, in which order samples come, how a batch is divided."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from kore.config.resolve import ModelSection, TrainSection
from kore.data.records import Sample
from kore.errors import UsageError
from kore.methods.overview import markdown
from kore.models.load import load
from kore.models.processing import IGNORED, Encoder
from kore.training.dataset import check_alike, data_hash, located
from kore.training.features import Features, Stream
from kore.training.hf_args import Split, arguments, deepspeed_config, split
from kore.training.sampler import EMPTY, draw, placed, step_count

LLAVA = """USER: <image>
What is the capital? ASSISTANT:| Lima</s>|USER: And the currency? ASSISTANT:| Sol. Yes!</s>|"""
QWEN = """<|im_start|>user
<|vision_start|><|image_pad|><|vision_end|>What is the capital?<|im_end|>
<|im_start|>assistant
|Lima<|im_end|>|
<|im_start|>user
And the currency?<|im_end|>
<|im_start|>assistant
|Sol. Yes!<|im_end|>|
"""


def conversation(picture: Path) -> Sample:
    turns = ["<image>\nWhat is the capital?", "Lima", "And the currency?", "Sol. Yes!"]
    said = [{"from": "human" if i % 2 == 0 else "gpt", "value": t} for i, t in enumerate(turns)]
    return Sample.model_validate({"id": "s", "image": str(picture), "conversations": said})


@pytest.mark.parametrize(("family", "form"), [("tiny_llava", LLAVA), ("tiny_qwen", QWEN)])
def test_only_the_assistants_tokens_carry_loss_token_by_token(
    family: str, form: str, picture: Path, request: pytest.FixtureRequest
) -> None:
    """`form` is the rendered text with a bar around each stretch that must carry loss."""
    encoder = Encoder(load(ModelSection(id=str(request.getfixturevalue(family)))).processor)
    features = encoder.training(conversation(picture))
    ids, labels = features["input_ids"].tolist(), features["labels"].tolist()
    mark = encoder.processor.image_token
    count = ids.count(encoder.processor.image_token_id)
    assert count > 0
    pieces = _pieces(form.replace(mark, mark * count))
    expected_ids: list[int] = []
    expected: list[bool] = []
    for index, piece in enumerate(pieces):
        tokens = encoder.tokenizer(piece, add_special_tokens=False)["input_ids"]
        expected_ids += tokens
        expected += [index % 2 == 1] * len(tokens)
    assert ids == expected_ids
    assert [label != IGNORED for label in labels] == expected
    spoken = [i for i, label in zip(ids, labels, strict=True) if label != IGNORED]
    assert encoder.tokenizer.decode(spoken) == "".join(_pieces(form)[1::2])
    assert all(label in (IGNORED, token) for token, label in zip(ids, labels, strict=True))


def _pieces(form: str) -> list[str]:
    """Split at bars that are not part of a token such as <|im_end|>."""
    import re

    return re.split(r"(?<![<])\|(?![>])", form)


def test_every_sample_comes_once_a_pass_and_the_order_depends_on_the_seed_alone() -> None:
    order = draw(10, 5, 4, seed=3)
    assert len(order) == 20 and sorted(order[:10]) == list(range(10)) == sorted(order[10:])
    assert order == draw(10, 5, 4, seed=3) != draw(10, 5, 4, seed=4)
    assert draw(10, 3, 4, seed=3) == order[:12]


def test_grouping_makes_batches_of_like_lengths_of_the_same_samples() -> None:
    lengths = [(7 * i) % 50 for i in range(64)]
    plain, grouped = draw(64, 16, 8, seed=0), draw(64, 16, 8, seed=0, lengths=lengths)
    assert sorted(plain) == sorted(grouped)

    def spread(order: list[int]) -> int:
        rows = [[lengths[i] for i in order[k : k + 8]] for k in range(0, len(order), 8)]
        return sum(max(row) - min(row) for row in rows)

    assert spread(grouped) < 0.3 * spread(plain)
    tops = [max(lengths[i] for i in grouped[k : k + 8]) for k in range(0, 128, 8)]
    assert tops != sorted(tops, reverse=True)


def test_steps_fill_the_epochs_up_to_the_limit() -> None:
    assert step_count(100, 6, 16) == 38
    assert step_count(100, 6, 16, max_steps=5) == 5
    assert step_count(3, 1, 16) == 1


def test_a_global_batch_is_divided_over_devices_and_accumulated() -> None:
    section = TrainSection(batch=54, micro_batch=9)
    assert [(s.micro, s.accumulate) for s in (split(section, w) for w in (1, 2, 6, 18))] == [
        (9, 6),
        (9, 3),
        (9, 1),
        (3, 1),
    ]
    assert all(split(section, w).batch == 54 for w in (1, 2, 3, 6, 9, 27))
    assert split(TrainSection(batch=14, micro_batch=5), 2).micro == 1
    uneven = split(section, 4)
    assert (uneven.micro, uneven.accumulate, uneven.batch, uneven.empty) == (7, 2, 54, 2)
    assert str(uneven) == "7 x 2 accumulated x 4 devices, 2 of them empty"


def test_empty_places_follow_each_batch_and_carry_no_loss(tiny_llava: Path, picture: Path) -> None:
    assert placed([0, 1, 2, 3, 4, 5], 3, 1) == [0, 1, 2, EMPTY, 3, 4, 5, EMPTY]
    encoder = Encoder(load(ModelSection(id=str(tiny_llava))).processor)
    stream = Stream(Features(located([conversation(picture)]), encoder), [0, EMPTY])
    assert stream[0].keys() == stream[1].keys()
    assert bool((stream[0]["labels"] != IGNORED).any()) and not bool((stream[1]["labels"] != IGNORED).any())


def test_deepspeeds_configuration_carries_the_sections_numbers_and_may_be_replaced() -> None:
    section = TrainSection(
        batch=8, micro_batch=2, zero=3, max_grad_norm=0.5, deepspeed={"bf16": {"enabled": False}}
    )
    config = deepspeed_config(section, split(section, 2), bf16=True)
    assert config["zero_optimization"]["stage"] == 3
    assert (config["train_batch_size"], config["gradient_accumulation_steps"]) == (8, 2)
    assert config["gradient_clipping"] == 0.5 and config["bf16"] == {"enabled": False}


def test_one_process_trains_on_one_of_several_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    parts = Split(4, 1, 1)
    made = arguments(TrainSection(batch=4), tmp_path, steps=1, parts=parts, cpu=False, bf16=False)
    assert (made.n_gpu, made.train_batch_size) == (1, 4)


@pytest.mark.parametrize(
    ("projector", "divided", "fits"),
    [(True, False, False), (False, True, False), (True, True, False), (False, False, True)],
)
def test_pictures_beside_none_on_several_processes_are_refused_where_one_would_wait_for_another(
    picture: Path, projector: bool, divided: bool, fits: bool
) -> None:
    bare = conversation(picture).model_copy(update={"id": "bare", "image": []})
    alike = [conversation(picture)] * 2
    check_alike(located(alike), projector=projector, divided=divided)
    if fits:
        check_alike(located([*alike, bare]), projector=projector, divided=divided)
        return
    with pytest.raises(UsageError, match=r"sample\[2\]: sample bare has no picture, and several processes"):
        check_alike(located([*alike, bare]), projector=projector, divided=divided)


def test_pictures_are_kept_once_and_the_budget_holds(tiny_llava: Path, tmp_path: Path) -> None:
    paths = []
    for i in range(2):
        paths.append(tmp_path / f"{i}.png")
        Image.effect_noise((40, 30), 64 + i).convert("RGB").save(paths[-1])
    samples = located([conversation(paths[i % 2]) for i in range(8)])
    encoder = Encoder(load(ModelSection(id=str(tiny_llava))).processor)
    features = Features(samples, encoder)
    stream = Stream(features, [0, 2, 1, 0])
    assert stream[0]["pixel_values"] is stream[1]["pixel_values"]
    assert stream[0]["pixel_values"] is not stream[2]["pixel_values"]
    small = Features(samples, encoder, budget=26_000)
    for i in range(8):
        assert torch.equal(small[i]["input_ids"], features[i]["input_ids"])
    assert len(small.cache) < 8 and small.cache.bytes <= 26_000


def test_the_datas_hash_follows_pictures_and_words_not_paths(tmp_path: Path) -> None:
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    Image.effect_noise((40, 30), 64).convert("RGB").save(first)
    second.write_bytes(first.read_bytes())
    assert data_hash(located([conversation(first)])) == data_hash(located([conversation(second)]))
    Image.effect_noise((40, 30), 99).convert("RGB").save(second)
    assert data_hash(located([conversation(first)])) != data_hash(located([conversation(second)]))


def test_the_documentation_holds_the_table_of_the_code() -> None:
    text = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    assert "\n".join(markdown()) in text
