"""A local chat model as the teacher, and samples as other trainers read them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from kore.augment import grow
from kore.augment.call import make_call
from kore.augment.schemas import Summary
from kore.augment.teachers.model import ModelTeacher
from kore.config.schema import AugmentSection
from kore.errors import DataError, MissingArtefact, ProviderError
from kore.llm.request import Reply
from tests.augment_loopback import gadgets

TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LLaMA of a few thousand parameters whose template refuses a system role."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.tiny import tokenizer

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("chat")
    words = tokenizer()
    words.chat_template = TEMPLATE
    words.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=4096,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_a_local_model_answers_together_what_is_asked_together(chat_model: Path) -> None:
    from kore.llm.local import LocalModel

    model = LocalModel(str(chat_model), batch=8)
    teacher = ModelTeacher(model, 0.0)
    calls = [make_call("summary", Summary, item, 0) for item in gadgets(3)]
    batches: list[int] = []
    generate = model._generate

    def counted(chats: list[list[dict[str, str]]], most: int) -> list[Reply]:
        batches.append(len(chats))
        return generate(chats, 6)

    model._generate = counted  # type: ignore[method-assign]

    async def run() -> tuple[list[Reply], Reply]:
        together = await asyncio.gather(*(teacher.reply(call) for call in calls))
        alone = await teacher.reply(calls[1], ("bad", "not JSON"))
        await teacher.close()
        return list(together), alone

    together, alone = asyncio.run(run())
    assert batches == [3, 1]
    assert all(0 < reply.tokens_out <= 6 for reply in together)
    assert alone.tokens_in > together[1].tokens_in, "a repair shows the bad reply too"
    assert teacher.name == f"hf:{chat_model.name}" and teacher.parameters["weights"]


@pytest.mark.slow
def test_what_a_model_that_never_ends_says_is_not_recorded_as_done(
    chat_model: Path, tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORE_CACHE", str(tmp_path / "kept"))
    monkeypatch.setattr("kore.augment.call.EXPECTED_OUT", dict.fromkeys(("questions", "summary", "vqa"), 3))
    section = AugmentSection(teacher=f"hf:{chat_model}", temperature=0.0, retries=1)
    with pytest.raises(ProviderError, match=r"2 of 2 items failed.*cut off after 9 tokens"):
        grow(gadgets(2, picture), section, tmp_path / "out")
    with pytest.raises(DataError, match="no sample could be made"):
        grow(gadgets(2, picture), section, tmp_path / "out", keep_going=True)


def test_a_model_that_is_not_here_or_cannot_chat_is_named(chat_model: Path, tmp_path: Path) -> None:
    from kore.llm.local import LocalModel

    with pytest.raises(MissingArtefact, match="no chat model at"):
        LocalModel(str(tmp_path / "nothing"))
    import shutil

    mute = tmp_path / "mute"
    shutil.copytree(chat_model, mute)
    for path in mute.glob("chat_template*"):
        path.unlink()
    config = json.loads((mute / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (mute / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="no chat template"):
        LocalModel(str(mute))


@pytest.mark.slow
def test_samples_load_in_datasets_and_have_the_sharegpt_form(
    tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setenv("KORE_CACHE", str(tmp_path / "kept"))
    items = gadgets(4, picture)
    items[2] = items[2].model_copy(update={"image": None})
    section = AugmentSection(teacher="offline", negatives=1.0, forest=True)
    report = grow(items, section, tmp_path / "out")
    loaded = datasets.load_dataset(
        "json",
        data_files=str(report.samples),
        split="train",
        cache_dir=str(tmp_path / "cache"),
        streaming=False,
    )
    assert len(loaded) == report.values["statistics"]["samples"]
    # what LLaMA-Factory's sharegpt converter asks for: turn about, human first, one mark a picture
    for row in loaded:
        roles = [turn["from"] for turn in row["conversations"]]
        assert roles == ["human", "gpt"] * (len(roles) // 2)
        marks = sum(turn["value"].count("<image>") for turn in row["conversations"])
        assert marks == (1 if row["image"] else 0)
