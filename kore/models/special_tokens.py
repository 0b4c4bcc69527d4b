"""The marks that begin a text and end a reply, where a chat template leaves them to others.

LLaVA-1.5's published template writes neither, though its model learned ``<s>… ASSISTANT: answer</s>``: the
tokenizer adds the first by itself, and nothing the second.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_REPLY = "Xyzzy"


@dataclass(frozen=True)
class Marks:
    """What a chat template leaves out.

    Attributes:
        begin: the mark that the tokenizer puts before a text by itself.
        end: the mark that ends a reply.
    """

    begin: str = ""
    end: str = ""

    def __str__(self) -> str:
        return f"{self.begin}...{self.end}" if self.begin or self.end else ""


def tokenizer_of(processor: Any) -> Any:
    """A processor's tokenizer; a text-only model's processor is its tokenizer."""
    return getattr(processor, "tokenizer", processor)


def special_texts(tokenizer: Any) -> re.Pattern[str] | None:
    """Matches the special tokens of a tokenizer wherever they stand in a text."""
    texts = {str(token.content) for token in tokenizer.added_tokens_decoder.values() if token.special}
    texts |= {str(token) for token in tokenizer.all_special_tokens}
    found = sorted((t for t in texts if len(t) > 1 and not t.isalnum()), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, found))) if found else None


def as_plain_text(text: str, special: re.Pattern[str] | None) -> str:
    """A text of the data in which special tokens have no meaning: an invisible space breaks each of them."""
    if special is None:
        return text
    return special.sub(lambda match: f"{match[0][0]}\u200b{match[0][1:]}", text)


def is_text_only(processor: Any) -> bool:
    """Whether the model reads no images."""
    return getattr(processor, "image_processor", None) is None


def render(processor: Any, chat: list[dict[str, Any]], open_prompt: bool = False) -> str:
    """The chat template's text. Models that think before they answer are asked not to.

    Args:
        chat: turns whose content is a list of text and image parts.
    """
    if is_text_only(processor):  # templates of text-only models take plain strings
        chat = [
            {**turn, "content": "".join(part.get("text", "") for part in turn["content"])} for turn in chat
        ]
    text = processor.apply_chat_template(
        chat, tokenize=False, add_generation_prompt=open_prompt, enable_thinking=False
    )
    assert isinstance(text, str)
    return text


def missing_marks(processor: Any) -> Marks:
    """What the processor's template leaves out, told by a short conversation."""
    from jinja2 import TemplateError

    turns = [("user", "Plugh"), ("assistant", _REPLY)]
    chat = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]
    try:
        text = render(processor, chat)
    except (TemplateError, TypeError, ValueError):
        return Marks()  # whoever needs the template is told then
    tokenizer = tokenizer_of(processor)
    begin = _begins(tokenizer)
    _, said, rest = text.rpartition(_REPLY)
    return Marks(
        "" if text.lstrip().startswith(begin) else begin,
        str(tokenizer.eos_token or "") if said and not rest.strip() else "",
    )


def _begins(tokenizer: Any) -> str:
    """The begin mark, if it is all that the tokenizer adds to a text."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    added = tokenizer("a", add_special_tokens=True)["input_ids"]
    begins = tokenizer.bos_token is not None and added == [tokenizer.bos_token_id, *plain]
    return str(tokenizer.bos_token) if begins else ""
