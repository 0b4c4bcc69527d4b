"""Drills without knowledge or pictures: to repeat what was said, and to tell whether two words are the same.

A small model that meets these only now and then, inside conversations, never learns them; dense practice
teaches both in a few hundred steps, and whatever compares a picture's name with a question's rests on them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scripts.tiny_base.tokens import Encoder
    from scripts.tiny_base.world import World

Row = tuple[list[int], list[int]]
LENGTH, ROUNDS, PAIRS = 32, 2, 7
ASKED = ("Is it {}?", "Is this {}?", "Is the name {}?", "Is {} right?")


def repeat(world: World, encoder: Encoder, rng: random.Random) -> Row:
    """Token ids and labels of words and word pieces at random, then twice the same again."""
    said: list[int] = []
    while len(said) < LENGTH:
        if rng.random() < 0.5:
            said.append(rng.randrange(encoder.first_word, len(encoder.tokenizer) - 2))
        else:
            said += encoder.pieces(" " + rng.choice(world.words))
    said = said[:LENGTH]
    ids, labels = [encoder.user, *said], [-100] * (1 + LENGTH)
    for _ in range(ROUNDS):
        ids += [encoder.assistant, *said]
        labels += [-100, *said]
    return ids, labels


def same(world: World, encoder: Encoder, rng: random.Random) -> Row:
    """Questions with a word, answered by another and whether it is the same; labels on that verdict."""
    ids: list[int] = []
    labels: list[int] = []
    for _ in range(PAIRS):
        word, other = world.sample_words(2, rng)
        yes = rng.random() < 0.5
        question = rng.choice(ASKED).format(word if yes else other)
        answer = encoder.pieces(f" {word}, so {'yes' if yes else 'no'}")
        row = [*encoder.prompt(question, False), *answer, encoder.eos]
        ids += row
        labels += [-100] * (len(row) - 2) + [answer[-1], -100]
    return ids, labels


DRILLS: dict[str, Callable[[World, Encoder, random.Random], Row]] = {"repeat": repeat, "same-word": same}
