"""Old samples that an instruct model writes itself: sampled user turns with its greedy answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch

from kore.data.records import IMAGE_MARK, Message, Sample
from kore.errors import DataError
from kore.models.generate import PLAIN, Engine, Prompt
from kore.models.load import Backbone
from kore.models.processing import to_chat

LONGEST_QUESTION = 48  # tokens
LONGEST_ANSWER = 64
_TRIES = 6  # sampled turns for one that is kept, at most
_MARK = "\ue000"  # stands for the user's words


def self_samples(
    backbone: Backbone,
    count: int,
    *,
    seed: int = 0,
    batch: int = 16,
    tries: int | None = None,
    on_done: Callable[[int], None] = lambda done: None,
) -> list[Sample]:
    """Let a model write `count` conversations of one turn, each question once.

    User turns are sampled (temperature 1, top-p 0.95) from the chat template's text before the user's words;
    answers are greedy, as the model gives them untouched.

    Args:
        tries: sample at most so many user turns; default: 6 for each sample.
        on_done: called with the number of finished samples.

    Raises:
        DataError: the model ends up with fewer, so it does not continue its chat template as a chat.
    """
    engine = Engine(backbone, batch=batch, max_new_tokens=LONGEST_ANSWER)
    samples: list[Sample] = []
    questions = _questions(engine, seed, batch, _TRIES * count if tries is None else tries)
    while chosen := list(islice(questions, min(batch, count - len(samples)))):
        answers = engine.answer([Prompt.ask(question) for question in chosen], adapter=False)
        for question, answer in zip(chosen, answers, strict=True):
            if answer and IMAGE_MARK not in answer:
                turns = [Message(from_="human", value=question), Message(from_="gpt", value=answer)]
                samples.append(Sample(id=f"self-{len(samples)}", conversations=turns))
        on_done(len(samples))
    if len(samples) < count:
        raise DataError(
            f"the model wrote {len(samples)} usable conversations of {count}",
            where=str(backbone.path),
            hint="it is perhaps not an instruct model; name old samples with --samples FILE.jsonl",
        )
    return samples


def _questions(engine: Engine, seed: int, batch: int, tries: int) -> Iterator[str]:
    """Distinct user turns, sampled; at most `tries` are."""
    tokenizer: Any = engine.encoder.tokenizer
    before, after = user_frame(engine)
    encoded = tokenizer(before, return_tensors="pt", **engine.encoder._special)
    ends = _end_tokens(engine, after)
    seen: set[str] = set()
    for number in range(-(-tries // batch)):
        with torch.random.fork_rng(), torch.no_grad(), engine._with(adapter=False):
            torch.manual_seed(seed * 100_003 + number)
            ids = engine.backbone.model.generate(
                **{k: v.repeat(batch, 1).to(engine.backbone.device) for k, v in encoded.items()},
                **PLAIN,
                do_sample=True,
                temperature=1.0,
                top_p=0.95,
                top_k=0,
                max_new_tokens=LONGEST_QUESTION,
                eos_token_id=ends,
                pad_token_id=engine.encoder.pad_id,
            )
        for row in ids[:, encoded["input_ids"].shape[1] :].tolist():
            if not any(token in ends for token in row):
                continue  # cut off
            text = tokenizer.decode(row[: next(i for i, t in enumerate(row) if t in ends)]).strip()
            key = " ".join(text.casefold().split())
            if _usable(text, tokenizer) and key not in seen:
                seen.add(key)
                yield text


def user_frame(engine: Engine) -> tuple[str, str]:
    """What the chat template writes before and after a user's words.

    Raises:
        DataError: the template does not repeat them.
    """
    chat = to_chat([Message(from_="human", value=_MARK)])
    before, found, after = engine.encoder._render(chat, open_prompt=True).partition(_MARK)
    if not found:
        raise DataError("the chat template leaves the user's words out", where=str(engine.backbone.path))
    return before, after


def _end_tokens(engine: Engine, after: str) -> list[int]:
    """Tokens that end a user's turn: the first one behind it, and the model's own."""
    tokenizer: Any = engine.encoder.tokenizer
    own = engine.backbone.model.generation_config.eos_token_id
    ends = list(own) if isinstance(own, (list, tuple)) else [own] if own is not None else []
    behind = tokenizer(after, add_special_tokens=False)["input_ids"][:1]
    return list(dict.fromkeys([*ends, *behind]))


def _usable(text: str, tokenizer: Any) -> bool:
    """Whether a sampled turn is a text of a few words without marks of the template."""
    special = any(token and token in text for token in tokenizer.all_special_tokens)
    return not special and IMAGE_MARK not in text and len(text.split()) >= 3 and text.isprintable()
