"""From conversations to tensors: chat template, pictures, and labels on the assistant's tokens only.

Works with any processor of transformers that has a chat template; the template is the processor's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from kore.data.records import IMAGE_MARK, Message, Sample
from kore.errors import DataError
from kore.io.images import open_image
from kore.models.image_sizes import refused
from kore.models.special_tokens import (
    as_plain_text,
    is_text_only,
    missing_marks,
    render,
    special_texts,
    tokenizer_of,
)

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100  # cross entropy skips this label
_ROLE = {"human": "user", "gpt": "assistant", "system": "system"}


def to_chat(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """LLaVA turns as the chat form of transformers, picture marks as content parts."""
    chat = []
    for message in messages:
        pieces = message.value.split(IMAGE_MARK)
        content: list[dict[str, str]] = []
        for index, piece in enumerate(pieces):
            if index:
                content.append({"type": "image"})
            if text := piece.strip("\n"):
                content.append({"type": "text", "text": text})
        chat.append({"role": _ROLE[message.from_], "content": content})
    return chat


class Encoder:
    """Turns samples into model inputs.

    Args:
        processor: tokenizer, image processor and chat template in one; or a tokenizer with a chat template.
        max_length: longest sequence in tokens; a longer one is an error that names the sample.
        cached_pixels: how many pixels of opened pictures to keep, by path (3 bytes each).
    """

    def __init__(self, processor: Any, max_length: int | None = None, cached_pixels: int = 1 << 26) -> None:
        self.processor = processor
        self.tokenizer = tokenizer_of(processor)
        self.text_only = is_text_only(processor)
        self.marks = missing_marks(processor)
        self._special_texts = special_texts(self.tokenizer)
        self.max_length = max_length
        self._images: OrderedDict[str, Image.Image] = OrderedDict()
        self._room = cached_pixels
        self._image_tokens: dict[tuple[int, int], int] = {}
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    def __getstate__(self) -> dict[str, Any]:
        """For another process: without the opened images."""
        opened = sum(_pixels(image) for image in self._images.values())
        return {**self.__dict__, "_images": OrderedDict(), "_room": self._room + opened}

    @property
    def pad_id(self) -> int:
        """The id that fills up shorter sequences."""
        return int(self.tokenizer.pad_token_id)

    def training(self, sample: Sample) -> dict[str, Tensor]:
        """Inputs with labels: everything but the assistant's words and their end mark is ignored.

        Returns:
            input_ids, attention_mask, labels (T,), and the processor's picture tensors.

        Raises:
            DataError: a broken picture, too long, or no assistant token to learn from.
        """
        chat = self._chat(sample.conversations)
        text = self._render(chat)
        features = self._process(text, sample.images, sample.id)
        self._check_length(features, sample.id)
        spans = self._assistant_spans(chat, text, sample.id)
        features["labels"] = self._labels(text, spans, features["input_ids"], sample)
        if not bool((features["labels"] != IGNORED).any()):
            raise DataError("no assistant token to learn from", where=f"sample {sample.id}")
        return features

    def prompt(self, messages: Sequence[Message], images: Sequence[Any], name: str = "") -> dict[str, Tensor]:
        """Inputs that end with the open generation prompt: for generation and calibration."""
        features = self._process(self._render(self._chat(messages), open_prompt=True), images, name)
        self._check_length(features, name)
        return features

    def length(self, sample: Sample) -> int:
        """Tokens of the sample as `training` encodes it, whatever max_length is.

        The tokens of a single picture depend on its size alone, so one of each size is processed.
        """
        text = self._render(self._chat(sample.conversations))
        images = [self._open(image, f"sample {sample.id}") for image in sample.images]
        if len(images) > 1:
            return len(self._process(text, images, sample.id)["input_ids"])
        return self._text_length(text) + sum(self._added_tokens(image) for image in images)

    def _added_tokens(self, image: Image.Image) -> int:
        """Tokens that stand for a picture, without its mark in the text."""
        if image.size not in self._image_tokens:
            mark = getattr(self.processor, "image_token", IMAGE_MARK)
            with_image = len(self._process(mark, [image], "")["input_ids"])
            self._image_tokens[image.size] = with_image - self._text_length(mark)
        return self._image_tokens[image.size]

    def _chat(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """The turns, with the model's special tokens inside their texts as plain text."""
        chat = to_chat(messages)
        for part in (part for turn in chat for part in turn["content"] if "text" in part):
            part["text"] = as_plain_text(part["text"], self._special_texts)
        return chat

    def _text_length(self, text: str) -> int:
        return len(self.tokenizer(text, **self._special)["input_ids"])

    def _check_length(self, features: dict[str, Tensor], name: str) -> None:
        length = len(features["input_ids"])
        if self.max_length and length > self.max_length:
            where = f"sample {name}" if name else None
            raise DataError(f"{length} tokens, more than max_length {self.max_length}", where=where)

    def _render(self, chat: list[dict[str, Any]], open_prompt: bool = False) -> str:
        """The template's text; where it ends replies with white space, their end mark stands for that."""
        text = self._template(chat, open_prompt)
        made, place = "", 0
        for index, turn in enumerate(chat if self.marks.end else ()):
            if turn["role"] == "assistant":
                until = self._template(chat[: index + 1])
                if not text.startswith(until):
                    raise DataError("the chat template rewrites earlier turns, so their ends are not known")
                said = max(len(until.rstrip()), len(self._template(chat[:index], open_prompt=True)))
                made += text[place : min(said, len(until))] + self.marks.end
                place = len(until)
        return made + text[place:]

    def _template(self, chat: list[dict[str, Any]], open_prompt: bool = False) -> str:
        return render(self.processor, chat, open_prompt)

    def _process(self, text: str, images: Sequence[Any], name: str) -> dict[str, Tensor]:
        where = f"sample {name}" if name else None
        if self.text_only and images:
            raise DataError(
                "the model reads no images",
                where=where,
                hint="leave the image out, or take a model that sees",
            )
        opened = [self._open(image, where) for image in images]
        given = {} if self.text_only else {"images": opened or None}
        try:
            batch = self.processor(text=[text], **given, return_tensors="pt", **self._special)
        except ValueError as error:
            if not opened:
                raise
            raise refused(max((image.size for image in opened), key=_aspect), error, where) from error
        features: dict[str, Tensor] = dict(batch)
        length = features["input_ids"].shape[1]
        return {k: v[0] if _is_sequence(v, length) else v for k, v in features.items()}

    @property
    def _special(self) -> dict[str, bool]:
        """The tokenizer adds its mark only where the template has not written it already."""
        return {"add_special_tokens": bool(self.marks.begin)}

    def _open(self, image: Any, where: str | None) -> Image.Image:
        if isinstance(image, Image.Image):
            return open_image(image)
        key = str(image)
        if key in self._images:
            self._images.move_to_end(key)
        else:
            self._images[key] = open_image(image, where)
            self._room -= _pixels(self._images[key])
            while self._room < 0 and len(self._images) > 1:
                self._room += _pixels(self._images.popitem(last=False)[1])
        return self._images[key]

    def _assistant_spans(self, chat: list[dict[str, Any]], text: str, name: str) -> list[tuple[int, int]]:
        """Character spans of the assistant's replies in `text`, end mark included."""
        spans = self._spans_by_prefix(chat, text) or self._spans_by_stand_in(chat, text)
        if spans is None:
            raise DataError(
                "the chat template rewrites earlier turns, so labels cannot be placed", where=f"sample {name}"
            )
        return spans

    def _spans_by_prefix(self, chat: list[dict[str, Any]], text: str) -> list[tuple[int, int]] | None:
        """The spans, if the template writes a conversation's beginning as it writes the whole."""
        spans = []
        for index, turn in enumerate(chat):
            if turn["role"] != "assistant":
                continue
            before = self._render(chat[:index], open_prompt=True)
            until = self._render(chat[: index + 1])
            if not (text.startswith(before) and text.startswith(until)):
                return None
            end = len(until)
            while end > len(before) and text[end - 1] in "\n ":
                end -= 1
            spans.append((len(before), end))
        return spans

    def _spans_by_stand_in(self, chat: list[dict[str, Any]], text: str) -> list[tuple[int, int]] | None:
        """The spans, where the template writes the last reply otherwise than those before it (Qwen3's empty
        thoughts): found by rendering marks in the place of the replies."""
        ends = sorted(
            (t.content for t in self.tokenizer.added_tokens_decoder.values()), key=len, reverse=True
        )
        marks = {i: f"\ue000{i}\ue001" for i, turn in enumerate(chat) if turn["role"] == "assistant"}
        rest = self._render(
            [
                {**turn, "content": [{"type": "text", "text": marks[i]}]} if i in marks else turn
                for i, turn in enumerate(chat)
            ]
        )
        made, spans = "", []
        for index, mark in marks.items():
            before, found, rest = rest.partition(mark)
            reply = "".join(part.get("text", "") for part in chat[index]["content"])
            start = len(made) + len(before)
            made += before + reply
            end = next((e for e in ends if rest.startswith(e)), "")
            spans.append((start, len(made) + len(end)))
            if not found:
                return None
        return spans if made + rest == text else None

    def _labels(self, text: str, spans: list[tuple[int, int]], ids: Tensor, sample: Sample) -> Tensor:
        """Map character spans to tokens, (T,) int64."""
        wanted = ids.tolist()
        expanded, moved = self._expand_images(text, spans, ids) if sample.images else (text, spans)
        encoded = self.tokenizer(expanded, return_offsets_mapping=True, **self._special)
        if encoded["input_ids"] != wanted and not self.text_only:
            expanded, moved = self._replaced(text, spans, sample)
            encoded = self.tokenizer(expanded, return_offsets_mapping=True, **self._special)
        if encoded["input_ids"] != wanted:
            raise DataError(
                "the processor's tokens cannot be mapped to its text", where=f"sample {sample.id}"
            )
        labels = torch.full_like(ids, IGNORED)
        for position, (start, end) in enumerate(encoded["offset_mapping"]):
            if end > start and any((a <= start and end <= b) or a < end <= b for a, b in moved):
                labels[position] = ids[position]
        return labels

    def _expand_images(
        self, text: str, spans: list[tuple[int, int]], ids: Tensor
    ) -> tuple[str, list[tuple[int, int]]]:
        """Repeat each picture's mark as often as the processor did, moving the spans along."""
        token_id = getattr(self.processor, "image_token_id", None)
        mark = getattr(self.processor, "image_token", IMAGE_MARK)
        if token_id is None:
            token_id = self.tokenizer.convert_tokens_to_ids(mark)
        is_mark = (ids == token_id).tolist()
        marks = text.count(mark)
        if not marks or sum(is_mark) == marks:
            return text, spans
        runs = _runs(is_mark) if marks > 1 else [sum(is_mark)]
        if len(runs) != marks:
            runs = [sum(is_mark) // marks] * marks
        pieces = text.split(mark)
        expanded, moved, new = pieces[0], list(spans), len(pieces[0])
        for run, piece in zip(runs, pieces[1:], strict=True):
            shift = (run - 1) * len(mark)
            moved = [(a + shift, b + shift) if a >= new else (a, b) for a, b in moved]
            expanded += mark * run + piece
            new = len(expanded)
        return expanded, moved

    def _replaced(
        self, text: str, spans: list[tuple[int, int]], sample: Sample
    ) -> tuple[str, list[tuple[int, int]]]:
        """As `_expand_images`, where a picture becomes more than its mark repeated (rows, columns, frames):
        the processor is asked what it wrote, which reads the pictures once more."""
        images = [self._open(image, f"sample {sample.id}") for image in sample.images]
        made = self.processor(
            text=[text], images=images or None, return_text_replacement_offsets=True, **self._special
        )
        expanded, moved, place = "", list(spans), 0
        for part in made.get("text_replacement_offsets", [[]])[0]:
            (first, last), written = part["span"], part["replacement"]
            expanded += text[place:first] + written
            shift = len(written) - (last - first)
            moved = [
                (a + shift, b + shift) if old >= last else (a, b)
                for (a, b), (old, _) in zip(moved, spans, strict=True)
            ]
            place = last
        return expanded + text[place:], moved


def _aspect(size: tuple[int, int]) -> float:
    return max(size) / min(size)


def _pixels(image: Image.Image) -> int:
    return image.width * image.height


def _runs(flags: list[bool]) -> list[int]:
    runs: list[int] = []
    inside = False
    for flag in flags:
        if flag and not inside:
            runs.append(0)
        if flag:
            runs[-1] += 1
        inside = flag
    return runs


def _is_sequence(value: Tensor, length: int) -> bool:
    return value.dim() == 2 and value.shape[0] == 1 and value.shape[1] == length
