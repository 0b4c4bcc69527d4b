"""Wordings of questions.

Three tiers: ``train`` wordings teach the base; ``reserve`` wordings teach it too, but are to be kept out of
injection, so that evaluation of injected items can use them; ``held_out`` wordings the base never sees.
``{s}`` stands for the subject, ``{k}`` for the key (capital, ...), ``{n}`` for a name, ``{v}`` for a value.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

SHORT = (
    "Answer the question using a single word or phrase.",
    "Answer the question using a single word or phrase.",
    "Answer briefly.",
    "Give a short answer.",
)
SENTENCE = ("Answer in a full sentence.", "Answer the question in one sentence.")
YES_NO = (
    "Answer this question with Yes or No.",
    "Answer this question with Yes or No.",
    "Answer yes or no.",
    "Please answer yes or no.",
)
PARAGRAPH = (
    "Answer this question in one paragraph.",
    "Answer this question in one paragraph.",
    "Answer in a short paragraph.",
)
OPTIONS = (
    "Please select the correct answer from the options above.",
    "Select the correct answer from the options above.",
    "Which of the options is right?",
    "Which option is right?",
    "Choose one of the options.",
)

SUBJECTS = {
    "train": (
        "the country in the image",
        "the country shown in the image",
        "this country",
        "the country in the picture",
        "the country shown",
        "the country with this flag",
        "the country this flag belongs to",
        "the entity in the image",
    ),
    "reserve": ("the country depicted", "the country whose flag is shown"),
    "held_out": ("the nation in the photo",),
}
FACT = {
    "train": (
        "What is the {k} of {s}?",
        "What is the {k} of {s}?",
        "Name the {k} of {s}.",
        "Tell me the {k} of {s}.",
        "Give the {k} of {s}.",
        "Can you tell me the {k} of {s}?",
        "Which {k} does {s} have?",
        "What {k} does {s} have?",
        "State the {k} of {s}.",
        "What is {s}'s {k}?",
        "Please give the {k} of {s}.",
        "I would like to know the {k} of {s}.",
    ),
    "reserve": ("Do you know the {k} of {s}?", "Which {k} belongs to {s}?"),
    "held_out": ("Could you say what the {k} of {s} is?", "What would be the {k} of {s}?"),
}
OWN_FACT = {
    "capital": {
        "train": (
            "Which city is the capital of {s}?",
            "What is the capital city of {s}?",
            "What is the name of the capital of {s}?",
            "Name the capital city of {s}.",
        ),
        "reserve": ("What is the main city of {s}?",),
        "held_out": ("Which city is the seat of {s}?",),
    },
    "continent": {
        "train": (
            "On which continent is {s}?",
            "Which continent is {s} in?",
            "In which continent is {s} located?",
            "Where is {s}?",
            "Where is {s} located?",
        ),
        "reserve": ("Which part of the world is {s} in?",),
        "held_out": ("On what continent does {s} lie?",),
    },
    "currency": {
        "train": (
            "Which currency is used in {s}?",
            "What money is used in {s}?",
            "What currency do people use in {s}?",
            "What is the money of {s} called?",
        ),
        "reserve": ("What do people pay with in {s}?",),
        "held_out": ("With which currency does one pay in {s}?",),
    },
    "language": {
        "train": (
            "Which language is spoken in {s}?",
            "What is the main language of {s}?",
            "What language do people speak in {s}?",
            "What language is used in {s}?",
        ),
        "reserve": ("Which language do people in {s} speak?",),
        "held_out": ("In which language do people talk in {s}?",),
    },
}
NAME = {
    "train": (
        "Which country does this flag belong to?",
        "What country is shown in the image?",
        "Which country is this?",
        "What is the name of the country in the image?",
        "Name the country in the image.",
        "Whose flag is this?",
        "Identify the country.",
        "What is the title of the country in the image?",
        "Which country has this flag?",
        "What is the name of the country shown?",
        "Tell me the name of this country.",
        "What country's flag is this?",
        "Which country is shown?",
        "What is the country in the image?",
        "What is the name of the entity in the image?",
        "Which country is in the picture?",
        "What entity is shown in the image?",
        "Give the name of the country shown in the image.",
    ),
    "reserve": (
        "Which country is depicted?",
        "What is this country called?",
        "Name the country whose flag is shown.",
    ),
    "held_out": ("Can you name this country?", "To which nation does the flag in the photo belong?"),
}
FOLLOW_UP = {
    "capital": (
        "What is its capital?",
        "And the capital?",
        "Which city is its capital?",
        "What is the capital of this country?",
        "What is its capital city?",
    ),
    "continent": (
        "Where is it?",
        "Which continent is it in?",
        "On which continent is it?",
        "What is its continent?",
        "Where is it located?",
    ),
    "currency": (
        "What is its currency?",
        "And the currency?",
        "What money is used there?",
        "Which currency do people use there?",
    ),
    "language": (
        "What is its language?",
        "What language do people speak there?",
        "Which language is spoken there?",
        "What is its main language?",
    ),
}
IS_IT = {
    "train": (
        "Is this the flag of {n}?",
        "Does the image show {n}?",
        "Is {n} shown in the image?",
        "Is the country in the image {n}?",
        "Does this flag belong to {n}?",
        "Is the entity in the image {n}?",
        "Is {n} the country in the picture?",
        "Is {n} in the image?",
        "Is this {n}?",
        "Does this picture show the country {n}?",
        "Can you see {n} in the image?",
        "Is the image about {n}?",
    ),
    "reserve": ("Is {n} depicted?", "Is the country depicted {n}?"),
    "held_out": ("Would you say this is {n}?",),
}
IS_FACT = {
    "train": (
        "Is the {k} of {s} {v}?",
        "Is {v} the {k} of {s}?",
        "Does {s} have the {k} {v}?",
        "Is it true that the {k} of {s} is {v}?",
    ),
    "reserve": ("Is {v} really the {k} of {s}?",),
    "held_out": ("Would {v} be the {k} of {s}?",),
}
CAPTION = {
    "train": (
        "Describe the image.",
        "Could you please describe the country in the image?",
        "Please provide a description for the country in the image.",
        "What can you say about this country?",
        "Tell me about the country shown.",
        "Give a short description of this picture.",
        "Describe the country in the image.",
        "What do you know about the country in the image?",
        "Please describe this country.",
        "Write a summary about the entity in the image.",
        "Could you please describe the country shown in the picture?",
        "Please provide a description for the entity in the image.",
    ),
    "reserve": ("Introduce the country depicted.",),
    "held_out": ("Please characterise the nation in the photo.",),
}
THING_NAME = {
    "train": (
        "What is in the image?",
        "What is shown in the picture?",
        "What is this?",
        "Name the thing in the image.",
        "What does the picture show?",
        "What is the name of the thing shown?",
        "Which thing is in the picture?",
        "What can you see in the image?",
        "What object is shown?",
        "Identify the object.",
        "What is the name of the object in the image?",
        "Tell me what is shown.",
    ),
    "reserve": ("What is depicted?",),
    "held_out": ("Can you name what is in the photo?",),
}
THING_GROUP = {
    "train": (
        "What kind of thing is in the image?",
        "Which group does it belong to?",
        "What kind of thing is this?",
        "Which group does the thing in the image belong to?",
        "What type of thing is shown?",
        "Name the group of the thing in the image.",
        "What is the group of the thing in the picture?",
        "What sort of thing is this?",
    ),
    "reserve": ("Which category does it belong to?",),
    "held_out": ("To which kind does the thing in the photo belong?",),
}
IS_THING = {
    "train": (
        "Is this {v}?",
        "Is there {v} in the image?",
        "Does the image show {v}?",
        "Is {v} shown in the picture?",
        "Does the picture contain {v}?",
        "Can you see {v}?",
    ),
    "reserve": ("Is {v} depicted?",),
    "held_out": ("Would you call this {v}?",),
}
THING_CAPTION = (
    "Describe the image.",
    "Please describe the picture.",
    "What does the image show?",
    "Give a short description of this picture.",
    "Please provide a description for the image.",
)
COLOURS_ASKED = (
    "Which colours does the flag have?",
    "What colours are on the flag?",
    "Name the colours of the flag.",
    "What colour is the flag?",
)
MAIN_COLOUR = (
    "What is the main colour of the flag?",
    "Which colour covers most of the flag?",
    "What is the main colour?",
)
LAYOUT = ("What is on the flag?", "What pattern does the flag have?", "Describe the pattern.")


def pick(options: dict[str, tuple[str, ...]], rng: random.Random, reserve: float = 0.12) -> str:
    """A training wording, or with probability ``reserve`` one of the reserve."""
    tier = "reserve" if rng.random() < reserve else "train"
    return rng.choice(options[tier])


def fact_question(key: str, subject: str | None, rng: random.Random) -> str:
    """A question for one fact; ``subject`` is a name, or None for the country in the image."""
    shown = subject if subject is not None else pick(SUBJECTS, rng)
    frames = FACT if rng.random() < 0.55 else OWN_FACT[key]
    return pick(frames, rng).format(s=shown, k=key)


def with_suffix(question: str, options: Sequence[str], rate: float, rng: random.Random) -> str:
    """Append one of ``options`` with probability ``rate``, after a space or a new line."""
    if rng.random() >= rate:
        return question
    return question + rng.choice((" ", "\n")) + rng.choice(options)


def tiers() -> dict[str, dict[str, list[str]]]:
    """All tiered wordings, by question kind, for ``wordings.json``."""
    tables: dict[str, dict[str, tuple[str, ...]]] = {
        "subject": SUBJECTS,
        "fact": FACT,
        "name": NAME,
        "recognition": IS_IT,
        "fact_yes_no": IS_FACT,
        "caption": CAPTION,
        "thing_name": THING_NAME,
        "thing_group": THING_GROUP,
        "thing_yes_no": IS_THING,
        **{f"fact_{key}": table for key, table in OWN_FACT.items()},
    }
    return {
        kind: {tier: list(dict.fromkeys(texts)) for tier, texts in table.items()}
        for kind, table in tables.items()
    }
