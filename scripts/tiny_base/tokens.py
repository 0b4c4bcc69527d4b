"""Tokenizer, chat template and processor of the embedded base."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from scripts.tiny_base import tasks, text_tasks
from scripts.tiny_base.world import CITIES, Conversation, World

PAD, EOS, UNK, IMAGE, USER, ASSISTANT = "<pad>", "</s>", "<unk>", "<image>", "USER:", "ASSISTANT:"
VOCABULARY = 3584
IMAGE_SIZE = 64
PATCH = 16
IMAGE_TOKENS = (IMAGE_SIZE // PATCH) ** 2
# as in published LLaVA-1.5 checkpoints: a system message is plain text, images stand before a turn's text
CHAT_TEMPLATE = (
    "{% for m in messages %}"
    "{% if m['role'] == 'assistant' %}ASSISTANT:{% generation %} "
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}</s>{% endgeneration %}"
    "{% else %}{% if m['role'] != 'system' %}USER: {% endif %}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}{% if part['type'] == 'image' %}<image>\n{% endif %}{% endfor %}"
    "{% for part in m['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %} "
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def any_talk(world: World, rng: random.Random) -> Conversation:
    """One conversation of any sort (for the tokenizer's corpus and the early tests)."""
    maker = rng.choice(
        (
            tasks.country_talk,
            tasks.thing_talk,
            tasks.shape_talk,
            tasks.fake_talk,
            text_tasks.text_talk,
            text_tasks.reading_beside_picture,
            text_tasks.invented_item,
        )
    )
    return maker(world, rng)


def corpus(world: World, rng: random.Random, count: int) -> Iterator[str]:
    """Text on which the tokenizer is trained: conversations and every word of the world."""
    for _ in range(count):
        for turn in any_talk(world, rng).turns:
            yield f" {turn.question} "
            yield f" {turn.answer}"
    taught = len(world.words) - CITIES
    for k, word in enumerate(world.words):
        yield from (f" {word} {word}, {word}." for _ in range(80 if k < taught else 2))


def build_tokenizer(world: World, seed: int) -> Any:
    """Byte-fallback BPE tokenizer as a ``PreTrainedTokenizerFast``."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE(byte_fallback=True, unk_token=UNK, fuse_unk=False))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("\n"), "isolated"),
            pre_tokenizers.Metaspace(prepend_scheme="never"),
            pre_tokenizers.Punctuation("isolated"),
        ]
    )
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = [PAD, UNK, EOS, IMAGE]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2,
        special_tokens=special + [f"<0x{byte:02X}>" for byte in range(256)],
        initial_alphabet=[chr(code) for code in range(32, 127)] + ["\n", "▁"],
        show_progress=False,
    )
    core.train_from_iterator(corpus(world, random.Random(seed), 30_000), trainer)
    core = with_plain_bytes(core)
    core.add_special_tokens([AddedToken(IMAGE, lstrip=True, special=True, normalized=False)])
    core.add_tokens([AddedToken(word, lstrip=True, normalized=False) for word in (USER, ASSISTANT)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
        padding_side="left",
        extra_special_tokens={"image_token": IMAGE},
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def with_plain_bytes(core: Any) -> Any:
    """The tokenizer with its bytes as ordinary pieces: what is special is left out of every answer.

    The trainer takes them only as special tokens.
    """
    told = json.loads(core.to_str())
    told["added_tokens"] = [t for t in told["added_tokens"] if not t["content"].startswith("<0x")]
    return type(core).from_str(json.dumps(told))


def build_processor(tokenizer: Any) -> Any:
    """LLaVA processor with a square CLIP image processor."""
    from transformers import LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    side = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    images = CLIPImageProcessorPil(
        size=side,
        crop_size=side,
        do_center_crop=False,
        do_convert_rgb=True,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return LlavaProcessor(
        images,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE,
        num_additional_image_tokens=1,
    )


class Encoder:
    """Conversations to token ids and labels, the same as through the chat template, but faster."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.user, self.assistant, self.image, self.eos, self.pad = (
            tokenizer.convert_tokens_to_ids(t) for t in (USER, ASSISTANT, IMAGE, EOS, PAD)
        )
        self.first_word = tokenizer.convert_tokens_to_ids("<0xFF>") + 1
        self.pieces = lru_cache(maxsize=400_000)(self._pieces)

    def _pieces(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)

    def prompt(self, question: str, image: bool) -> list[int]:
        """``USER: [<image> x 16 newline] question ASSISTANT:`` (ids)."""
        if image:
            body = (*[self.image] * IMAGE_TOKENS, *self.pieces("\n" + question))
        else:
            body = self.pieces(" " + question)
        return [self.user, *body, self.assistant]

    def conversation(self, talk: Conversation, reasons: bool = True) -> tuple[list[int], list[int]]:
        """Token ids, and labels that are -100 outside the answers, which give their ``reasons`` or not."""
        ids: list[int] = []
        labels: list[int] = []
        for k, turn in enumerate(talk.turns):
            prompt = self.prompt(turn.question, talk.pool is not None and k == 0)
            answer = [*self.pieces(" " + (turn.spoken if reasons else turn.answer)), self.eos]
            ids += prompt + answer
            labels += [-100] * len(prompt) + answer
        return ids, labels
