"""Choose an export's canaries and compute their answers, with KORE's model or with stock tools."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kore.artifacts.canaries import IMAGES, Answer, Canary, Order
from kore.config.schema import ModelSection
from kore.data.records import IMAGE_MARK, Message
from kore.io.images import open_image
from kore.models.adapter_off import adapter_off
from kore.models.collate import collate
from kore.models.families import model_class
from kore.models.generate import PLAIN, Prompt
from kore.models.load import load_processor
from kore.models.load_errors import loading
from kore.models.processing import Encoder, to_chat
from kore.models.special_tokens import is_text_only, render, tokenizer_of

if TYPE_CHECKING:
    from kore.models.load import Backbone

COUNT = 16
LONGEST = 24  # tokens of an answer
_FIRST = 4  # tokens whose log-probabilities are kept
SYSTEM = "Answer briefly."


@dataclass(frozen=True)
class _Asked:
    order: Order
    prompt: Prompt
    base: Answer
    adapter: Answer


def make_canaries(backbone: Backbone, prompts: Sequence[Prompt], folder: Path) -> list[Canary]:
    """About `COUNT` canaries, half of them with different answers of base and adapter where there are such.

    The first prompts that tell the two apart are also asked with the text before the image and, where the
    chat template takes one, with a system message. Images are written to ``canaries/`` in the folder.
    """
    asked = [_ask(backbone, "plain", prompt) for prompt in prompts]
    differ = [one for one in asked if one.base.text != one.adapter.text]
    same = [one for one in asked if one.base.text == one.adapter.text]
    variants = _variants(backbone, [*differ, *same])
    room = COUNT - len(variants)
    few = min(len(differ), max(room - len(same), room // 2))
    chosen = [*differ[:few], *same[: room - few], *variants]
    return [_canary(str(number), one, folder) for number, one in enumerate(chosen)]


def _variants(backbone: Backbone, asked: Sequence[_Asked]) -> list[_Asked]:
    """One prompt with the text first and one with a system message."""
    found: list[_Asked] = []
    shown = next((one.prompt for one in asked if one.prompt.images), None)
    if shown is not None:
        *before, last = shown.turns
        text = last.value.replace(IMAGE_MARK, "").strip("\n")
        turned = Message(from_="human", value=text + f"\n{IMAGE_MARK}" * len(shown.images))
        found.append(_ask(backbone, "text-first", Prompt((*before, turned), shown.images)))
    plain = next((one.prompt for one in asked if one.prompt.turns[0].from_ == "human"), None)
    if plain is not None and _takes_system(backbone.processor):
        system = Message(from_="system", value=SYSTEM)
        found.append(_ask(backbone, "system", Prompt((system, *plain.turns), plain.images)))
    return found


def _takes_system(processor: Any) -> bool:
    """Whether the chat template renders a system message."""
    from jinja2 import TemplateError

    turns = [Message(from_="system", value=SYSTEM), Message(from_="human", value="Hello")]
    try:
        return SYSTEM in render(processor, to_chat(turns), True)
    except (TemplateError, ValueError):
        return False


def _ask(backbone: Backbone, order: Order, prompt: Prompt) -> _Asked:
    encoder = Encoder(backbone.processor)
    row = encoder.prompt(prompt.turns, prompt.images)
    inputs = {k: v for k, v in collate([row], encoder.pad_id, side="left").items() if k != "labels"}
    answers = []
    for off in (True, False):
        with adapter_off(backbone.model) if off else nullcontext():
            answers.append(greedy(backbone.model, inputs, encoder.tokenizer))
    return _Asked(order, prompt, *answers)


@torch.no_grad()
def greedy(model: Any, inputs: dict[str, Any], tokenizer: Any) -> Answer:
    """One greedy answer to encoded inputs of one prompt."""
    placed = {
        k: v.to(model.device, model.dtype if v.is_floating_point() else v.dtype) for k, v in inputs.items()
    }
    made = model.generate(
        **placed,
        **PLAIN,
        do_sample=False,
        max_new_tokens=LONGEST,
        pad_token_id=tokenizer.pad_token_id,
        return_dict_in_generate=True,
        output_scores=True,
    )
    ids = made.sequences[0, inputs["input_ids"].shape[1] :]
    scored = list(zip(made.scores, ids, strict=False))[:_FIRST]
    first = [scores[0].float().log_softmax(-1)[token].item() for scores, token in scored]
    text = tokenizer.decode(ids, skip_special_tokens=True).strip()
    ended = len(ids) < LONGEST or int(ids[-1]) in _ends(model)
    return Answer(text, tuple(round(value, 4) for value in first), ended)


def _ends(model: Any) -> set[int]:
    ends = model.generation_config.eos_token_id
    return set(ends) if isinstance(ends, (list, tuple)) else {ends}


def _canary(name: str, asked: _Asked, folder: Path) -> Canary:
    files = []
    for number, image in enumerate(asked.prompt.images):
        path = Path(IMAGES) / f"{name}-{number}.png"
        (folder / IMAGES).mkdir(parents=True, exist_ok=True)
        open_image(image).save(folder / path)
        files.append(path.as_posix())
    messages = []
    for turn in to_chat(asked.prompt.turns):
        parts = [
            {"type": "image", "image": files.pop(0)} if part["type"] == "image" else part
            for part in turn["content"]
        ]
        messages.append({"role": turn["role"], "content": parts})
    return Canary(name, asked.order, tuple(messages), LONGEST, asked.base, asked.adapter)


def stock_answers(canaries: Sequence[Canary], folder: Path, base: Path, adapter: Path | None) -> list[Answer]:
    """The canaries' answers by transformers and PEFT, in float32.

    Args:
        folder: the export, which holds the canaries' images.
        base: the model folder. adapter: an adapter folder for PEFT.

    Raises:
        DataError: what the two libraries refuse to load.
    """
    from peft import PeftModel
    from transformers import AutoConfig

    with loading("model", base):
        auto = model_class(AutoConfig.from_pretrained(base))
        model: Any = auto.from_pretrained(base, dtype="float32", use_safetensors=True)
    processor = load_processor(base, ModelSection(id=str(base)))
    if adapter is not None:
        with loading("adapter", adapter):
            model = PeftModel.from_pretrained(model, str(adapter))
    model.eval()
    tokenizer = tokenizer_of(processor)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    answers = []
    for canary in canaries:
        inputs = processor.apply_chat_template(
            _opened(canary, folder, is_text_only(processor)),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            **({"enable_thinking": False} if is_text_only(processor) else {}),
        )
        answers.append(greedy(model, dict(inputs), tokenizer))
    return answers


def _opened(canary: Canary, folder: Path, text_only: bool) -> list[dict[str, Any]]:
    """The messages with their images opened; plain text for a model that reads no images."""
    if text_only:
        return [{**m, "content": "".join(part["text"] for part in m["content"])} for m in canary.messages]
    return [
        {
            "role": message["role"],
            "content": [
                {"type": "image", "image": open_image(folder / part["image"])}
                if part["type"] == "image"
                else part
                for part in message["content"]
            ],
        }
        for message in canary.messages
    ]
