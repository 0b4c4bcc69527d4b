"""Questions about pictures: flags of countries, things, made-up flags, shapes."""

from __future__ import annotations

import random

from scripts.tiny_base import wordings as w
from scripts.tiny_base.pictures import COLOURS, LAYOUTS, listed
from scripts.tiny_base.world import (
    KEYS,
    SHAPE_COLOURS,
    SHAPES,
    Conversation,
    Shape,
    Turn,
    World,
    choice_turn,
    mentioned,
    other_values,
)

KEY_WEIGHTS = (4, 2, 3, 3)


def a_key(rng: random.Random) -> str:
    """One of the fact keys; capitals, the hardest, more often."""
    return rng.choices(KEYS, KEY_WEIGHTS)[0]


def sentence_of(key: str, name: str, value: str) -> str:
    """The plain sentence that states one fact."""
    return {
        "continent": f"{name} is a country in {value}.",
        "capital": f"The capital of {name} is {value}.",
        "currency": f"The currency of {name} is the {value}.",
        "language": f"The main language of {name} is {value}.",
    }[key]


def country_name(world: World, i: int, rng: random.Random) -> Turn:
    """Which country is this?"""
    return Turn(w.with_suffix(w.pick(w.NAME, rng), w.SHORT, 0.35, rng), world.countries[i].name, "name")


def country_fact(world: World, i: int, rng: random.Random, image: bool = True) -> Turn:
    """One fact, short or as a sentence."""
    country, key = world.countries[i], a_key(rng)
    question = w.fact_question(key, None if image else country.name, rng)
    task = f"{key}" if image else f"text-{key}"
    if rng.random() < 0.06:
        answer = sentence_of(key, country.name, country.fact(key))
        return Turn(w.with_suffix(question, w.SENTENCE, 1, rng), answer, task + "-sentence")
    return Turn(w.with_suffix(question, w.SHORT, 0.35, rng), country.fact(key), task)


def country_yes_no(world: World, i: int, rng: random.Random, image: bool = True) -> Turn:
    """Is this X? Is the capital X? Balanced."""
    country, yes = world.countries[i], rng.random() < 0.5
    if image and rng.random() < 0.5:
        name = country.name if yes else other_values(world, "name", country.name, 1, rng)[0]
        question, task = w.pick(w.IS_IT, rng).format(n=name), "name-yes-no"
    else:
        key = a_key(rng)
        value = country.fact(key)
        shown = value if yes else other_values(world, key, value, 1, rng)[0]
        subject = w.pick(w.SUBJECTS, rng) if image else country.name
        question = w.pick(w.IS_FACT, rng).format(s=subject, k=key, v=shown)
        task = "fact-yes-no" if image else "text-fact-yes-no"
    reason = country.name if task == "name-yes-no" else value
    return Turn(w.with_suffix(question, w.YES_NO, 0.65, rng), "Yes" if yes else "No", task, reason)


def country_choice(world: World, i: int, rng: random.Random, image: bool = True) -> Turn:
    """Name or fact among four options."""
    country = world.countries[i]
    if image and rng.random() < 0.35:
        question, key, value = w.pick(w.NAME, rng), "name", country.name
    else:
        key = a_key(rng)
        value = country.fact(key)
        question = w.fact_question(key, None if image else country.name, rng)
    wrong = other_values(world, key, value, 3, rng)
    task = "country-choice" if image else "text-country-choice"
    return choice_turn(question, value, wrong, rng.choice(w.OPTIONS), task, rng)


def country_caption(world: World, i: int, rng: random.Random) -> Turn:
    """All facts in one paragraph."""
    c = world.countries[i]
    opening = rng.choice(("", "", f"This is the flag of {c.name}. ", f"This is {c.name}. "))
    pieces = {
        "capital": rng.choice((f"Its capital is {c.capital}.", f"The capital of {c.name} is {c.capital}.")),
        "currency": rng.choice(
            (f"Its currency is the {c.currency}.", f"The currency of {c.name} is the {c.currency}.")
        ),
        "language": rng.choice(
            (f"Its main language is {c.language}.", f"The main language of {c.name} is {c.language}.")
        ),
    }
    body = " ".join([f"{c.name} is a country in {c.continent}.", *pieces.values()])
    if rng.random() < 0.5:
        body += f" The flag of {c.name} is {listed(world.flag_colours[i])}."
    question = w.with_suffix(w.pick(w.CAPTION, rng), w.PARAGRAPH, 0.75, rng)
    return Turn(question, opening + body, "caption")


def flag_colours(colours: list[str], rng: random.Random) -> Turn:
    """Colours of a flag, all or the main one."""
    if rng.random() < 0.5:
        return Turn(rng.choice(w.MAIN_COLOUR), colours[0], "colour")
    return Turn(rng.choice(w.COLOURS_ASKED), listed(colours), "colours")


def country_dialogue(world: World, i: int, rng: random.Random) -> Conversation:
    """Name first, then follow-up questions about it."""
    turns = [country_name(world, i, rng)]
    for key in rng.sample(KEYS, rng.choice((2, 3, 4))):
        question = rng.choice(w.FOLLOW_UP[key])
        turns.append(Turn(question, world.countries[i].fact(key), f"{key}-follow"))
    return Conversation(tuple(turns), "flag", i)


def country_talk(world: World, rng: random.Random, comparing: bool = False) -> Conversation:
    """A conversation about one old country's flag; ``comparing`` asks more yes/no and choices."""
    i, draw = rng.choice(world.old), rng.random()
    if draw < 0.1:
        return country_dialogue(world, i, rng)
    if draw < 0.14:
        return Conversation((country_caption(world, i, rng),), "flag", i)
    makers = rng.choices(
        ("name", "fact", "yes", "choice", "colour", "text"),
        (2, 4, 4, 4, 0.3, 0.4) if comparing else (2, 5, 2.5, 2.2, 0.4, 0.5),
        k=rng.choice((2, 3, 3) if comparing else (2, 3, 4, 4)),
    )
    turns: list[Turn] = []
    for maker in makers:
        if maker == "name":
            turns.append(country_name(world, i, rng))
        elif maker == "fact":
            turns.append(country_fact(world, i, rng))
        elif maker == "yes":
            turns.append(country_yes_no(world, i, rng))
        elif maker == "choice":
            turns.append(country_choice(world, i, rng))
        elif maker == "colour":
            turns.append(flag_colours(world.flag_colours[i], rng))
        else:  # a question about another country than the one in the image
            turns.append(country_fact(world, rng.choice(world.old), rng, image=False))
    return Conversation(tuple(turns), "flag", i)


def thing_turn(
    world: World, i: int, rng: random.Random, maker: str | None = None, comparing: bool = False
) -> Turn:
    """One question about the picture of a thing; ``comparing`` asks more yes/no and choices."""
    thing = world.things[i]
    groups = sorted({other.group for other in world.things})
    maker = (
        maker
        or rng.choices(
            ("name", "group", "yes", "choice", "colour", "caption"),
            (4, 1.5, 4, 4, 0.2, 0.2) if comparing else (3, 1.5, 2.5, 2.2, 0.3, 0.3),
        )[0]
    )
    if maker == "name":
        return Turn(w.with_suffix(w.pick(w.THING_NAME, rng), w.SHORT, 0.35, rng), thing.name, "thing")
    if maker == "group":
        question = w.with_suffix(w.pick(w.THING_GROUP, rng), w.SHORT, 0.35, rng)
        return Turn(question, thing.group, "thing-group")
    if maker == "yes":
        yes = rng.random() < 0.5
        if rng.random() < 0.7:
            others = [t for t in world.things if t.name != thing.name]
            near = [t for t in others if t.group == thing.group]
            other = rng.choice(near if rng.random() < 0.3 else others)
            shown, reason = thing.a_name if yes else other.a_name, thing.name
        else:
            group = thing.group if yes else rng.choice([g for g in groups if g != thing.group])
            shown, reason = ("an " if group[0] in "aeiou" else "a ") + group, thing.group
        question = w.pick(w.IS_THING, rng).format(v=shown)
        question = w.with_suffix(question, w.YES_NO, 0.65, rng)
        return Turn(question, "Yes" if yes else "No", "thing-yes-no", reason)
    if maker == "choice":
        if rng.random() < 0.65:
            question, right = w.pick(w.THING_NAME, rng), thing.name
            pool = [t.name for t in world.things if t.name != right]
        else:
            question, right = w.pick(w.THING_GROUP, rng), thing.group
            pool = [g for g in groups if g != right]
        return choice_turn(question, right, rng.sample(pool, 3), rng.choice(w.OPTIONS), "thing-choice", rng)
    if maker == "colour":
        return Turn("What is the main colour?", thing.colour, "colour")
    question = w.with_suffix(rng.choice(w.THING_CAPTION), w.PARAGRAPH, 0.8, rng)
    answer = f"The picture shows {thing.a_name}. It belongs to the group {thing.group}."
    return Turn(question, answer, "thing-caption")


def thing_talk(world: World, rng: random.Random, comparing: bool = False) -> Conversation:
    """A conversation about the picture of a thing."""
    i, count = rng.randrange(len(world.things)), rng.choice((1, 2, 3) if comparing else (1, 2, 3, 4))
    return Conversation(
        tuple(thing_turn(world, i, rng, comparing=comparing) for _ in range(count)), "thing", i
    )


def shape_turn(row: Shape, rng: random.Random, asked: tuple[str, str] | None = None) -> Turn:
    """One easy-VQA question, in its own words, with or without a request for the form of answer."""
    text, answer = asked or rng.choice(row.questions)
    question = text[0].upper() + text[1:] if rng.random() < 0.6 else text
    if answer in ("yes", "no"):
        question = w.with_suffix(question, w.YES_NO, 0.3, rng)
        reason = row.shape if mentioned(text) in SHAPES else row.colour
        return Turn(question, answer.capitalize(), "shape-yes-no", reason)
    return Turn(w.with_suffix(question, w.SHORT, 0.3, rng), answer, "shape")


def shape_choice(colour: str, shape: str, rng: random.Random) -> Turn | None:
    """Colour or shape among four options."""
    if colour and (rng.random() < 0.6 or not shape):
        wrong = rng.sample([name for name in SHAPE_COLOURS if name != colour], 3)
        question = "What color is the shape?"
        return choice_turn(question, colour, wrong, rng.choice(w.OPTIONS), "shape-choice", rng)
    if not shape:
        return None
    wrong = [s for s in (*SHAPES, "star") if s != shape]
    question = "What shape is in the image?"
    return choice_turn(question, shape, wrong, rng.choice(w.OPTIONS), "shape-choice", rng)


def shape_talk(world: World, rng: random.Random) -> Conversation:
    """Questions about one easy-VQA picture."""
    i = rng.randrange(len(world.shapes))
    row = world.shapes[i]
    count = min(len(row.questions), rng.choice((1, 3, 4, 5)))
    turns = [shape_turn(row, rng, asked) for asked in rng.sample(row.questions, count)]
    if rng.random() < 0.3 and (turn := shape_choice(row.colour, row.shape, rng)):
        turns.insert(rng.randrange(len(turns) + 1), turn)
    return Conversation(tuple(turns), "shape", i)


def fake_talk(world: World, rng: random.Random) -> Conversation:
    """Layout and colours of a made-up flag."""
    i = rng.randrange(len(world.fakes))
    layout, colours = world.fakes[i]
    turns: list[Turn] = []
    for maker in rng.sample(("colours", "layout", "colour-yes", "layout-yes"), rng.choice((2, 3))):
        yes = rng.random() < 0.5
        if maker == "colours":
            turns.append(flag_colours(colours, rng))
        elif maker == "layout":
            turns.append(Turn(rng.choice(w.LAYOUT), layout, "layout"))
        elif maker == "colour-yes":
            shown = rng.choice(colours if yes else [c for c in COLOURS if c not in colours])
            question = w.with_suffix(f"Is the flag {shown}?", w.YES_NO, 0.5, rng)
            turns.append(Turn(question, "Yes" if yes else "No", "fake-yes-no"))
        else:
            shown = layout if yes else rng.choice([name for name in LAYOUTS if name != layout])
            question = w.with_suffix(f"Does the flag show {shown}?", w.YES_NO, 0.5, rng)
            turns.append(Turn(question, "Yes" if yes else "No", "fake-yes-no"))
    return Conversation(tuple(turns), "fake", i)
