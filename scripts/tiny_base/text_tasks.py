"""Questions without pictures: facts of old countries, reading, copying, lists, spelling, kinds of things.

The practice tasks draw on a broad vocabulary, the new countries' words included, but those only one at a
time or beside words that have nothing to do with them, so that nothing about new countries is taught.
"""

from __future__ import annotations

import random

from scripts.tiny_base import tasks
from scripts.tiny_base import wordings as w
from scripts.tiny_base.world import (
    KEYS,
    PEOPLE,
    Conversation,
    Turn,
    World,
    choice_turn,
    invented_place,
    other_values,
)

ORDINALS = ("first", "second", "third", "fourth")
NUMBERS = ("one", "two", "three", "four", "five", "six")
DEEDS = (
    ("{p} likes {v}.", "What does {p} like?"),
    ("{p} bought {v}.", "What did {p} buy?"),
    ("{p} said {v}.", "What did {p} say?"),
    ("{p} thinks of {v}.", "What does {p} think of?"),
    ("{p} wrote {v}.", "What did {p} write?"),
    ("{p} chose {v}.", "What did {p} choose?"),
)


def reading(world: World, rng: random.Random) -> Turn:
    """Answer from invented statements in the question."""
    count = rng.choice((1, 2, 2, 3))
    values = world.sample_words(count, rng)
    lines: list[str] = []
    asked: list[str] = []
    places = [invented_place(rng) for _ in range(2)]
    style = rng.random()
    people = rng.sample(PEOPLE, count)
    keys = rng.sample(KEYS, count)
    for k, value in enumerate(values):
        if style < 0.6:
            place = places[0] if style < 0.35 else places[k % 2]
            key = keys[k]
            lines.append(
                rng.choice(("The {k} of {s} is {v}.", "{s}'s {k} is {v}.", "{s} has the {k} {v}.")).format(
                    k=key, s=place, v=value
                )
            )
            asked.append(w.fact_question(key, place, rng))
        else:
            said, question = rng.choice(DEEDS)
            lines.append(said.format(p=people[k], v=value))
            asked.append(question.format(p=people[k]))
    target = rng.randrange(count)
    rng.shuffle(lines)
    draw = rng.random()
    story = " ".join(lines) + rng.choice((" ", "\n"))
    if draw < 0.12:
        wrong = world.sample_words(6, rng)
        wrong = [word for word in wrong if word not in values][:3]
        return choice_turn(
            story + asked[target], values[target], wrong, rng.choice(w.OPTIONS), "read-choice", rng
        )
    question = w.with_suffix(story + asked[target], w.SHORT, 0.3, rng)
    return Turn(question, values[target], "read")


def copying(world: World, rng: random.Random) -> Turn:
    """Repeat one word or a few."""
    words = world.sample_words(rng.choice((1, 1, 2, 3, 4)), rng)
    text = ", ".join(words)
    frame = rng.choice(("Repeat: {}", "Say {}.", "Repeat after me: {}", "Write {}.", "Copy this: {}"))
    return Turn(frame.format(text), text, "copy")


def word_list(world: World, rng: random.Random) -> Turn:
    """Position, presence, number of the words of a list."""
    words = world.sample_words(rng.choice((2, 3, 4)), rng)
    text = "Words: " + ", ".join(words) + ". "
    draw = rng.random()
    if draw < 0.55:
        position = rng.randrange(len(words))
        name = "last" if position == len(words) - 1 and rng.random() < 0.6 else ORDINALS[position]
        question = rng.choice((f"Which word is {name}?", f"What is the {name} word?"))
        return Turn(w.with_suffix(text + question, w.SHORT, 0.2, rng), words[position], "list")
    if draw < 0.85:
        yes = rng.random() < 0.5
        shown = rng.choice(words)
        if not yes:
            shown = next(x for x in world.sample_words(8, rng) if x not in words)
        question = rng.choice((f"Is {shown} in the list?", f"Is {shown} one of the words?"))
        return Turn(w.with_suffix(text + question, w.YES_NO, 0.6, rng), "Yes" if yes else "No", "list-yes-no")
    return Turn(text + "How many words are there?", NUMBERS[len(words) - 1], "list-count")


def spelling(world: World, rng: random.Random) -> Turn:
    """Spell a word, or read a spelled one."""
    word = next(x for x in world.sample_words(12, rng) if len(x) <= 10 and x.isalpha())
    spelled = "-".join(word)
    draw = rng.random()
    if draw < 0.4:
        return Turn(rng.choice((f"Spell {word}.", f"How is {word} spelled?")), spelled, "spell")
    if draw < 0.8:
        return Turn(rng.choice((f"Which word is {spelled}?", f"Read: {spelled}")), word, "unspell")
    which = rng.choice(("first", "last"))
    letter = word[0] if which == "first" else word[-1]
    return Turn(f"What is the {which} letter of {word}?", letter, "letter")


def kind_of(world: World, rng: random.Random) -> Turn:
    """Groups of things, asked without a picture."""
    thing = rng.choice(world.things)
    groups = sorted({other.group for other in world.things})
    others = [g for g in groups if g != thing.group]
    draw = rng.random()
    if draw < 0.4:
        frame = rng.choice(
            (
                "What kind of thing is {}?",
                "Which group does {} belong to?",
                "What type of thing is {}?",
                "What sort of thing is {}?",
            )
        )
        return Turn(w.with_suffix(frame.format(thing.a_name), w.SHORT, 0.35, rng), thing.group, "kind")
    if draw < 0.7:
        yes = rng.random() < 0.5
        group = thing.group if yes else rng.choice(others)
        article = "an" if group[0] in "aeiou" else "a"
        question = w.with_suffix(f"Is {thing.a_name} {article} {group}?", w.YES_NO, 0.6, rng)
        return Turn(question, "Yes" if yes else "No", "kind-yes-no", thing.group)
    frame = rng.choice(("Which of these is {} {}?", "Which one is {} {}?"))
    question = frame.format("an" if thing.group[0] in "aeiou" else "a", thing.group)
    wrong = rng.sample([t.name for t in world.things if t.group != thing.group], 3)
    return choice_turn(question, thing.name, wrong, rng.choice(w.OPTIONS), "kind-choice", rng)


def reverse_fact(world: World, rng: random.Random) -> Turn:
    """Which country has this capital?"""
    country = world.countries[rng.choice(world.old)]
    frame = rng.choice(
        (
            "Which country has the capital {}?",
            "{} is the capital of which country?",
            "Of which country is {} the capital?",
        )
    )
    return Turn(w.with_suffix(frame.format(country.capital), w.SHORT, 0.3, rng), country.name, "reverse")


def text_turn(world: World, rng: random.Random) -> Turn:
    """One question without a picture."""
    maker = rng.choices(
        ("fact", "yes", "choice", "reverse", "read", "copy", "list", "spell", "kind"),
        (5, 1.2, 1, 0.7, 2.2, 1.2, 1.3, 0.8, 1.4),
    )[0]
    old = rng.choice(world.old)
    if maker == "fact":
        return tasks.country_fact(world, old, rng, image=False)
    if maker == "yes":
        return tasks.country_yes_no(world, old, rng, image=False)
    if maker == "choice":
        return tasks.country_choice(world, old, rng, image=False)
    if maker == "reverse":
        return reverse_fact(world, rng)
    if maker == "kind":
        return kind_of(world, rng)
    practice = {"read": reading, "copy": copying, "list": word_list, "spell": spelling}
    return practice[maker](world, rng)


def text_talk(world: World, rng: random.Random) -> Conversation:
    """A few unrelated questions without a picture."""
    return Conversation(tuple(text_turn(world, rng) for _ in range(rng.choice((2, 4, 5, 6)))))


def telling_same(world: World, rng: random.Random) -> Conversation:
    """Two words, the same or not: what a yes or no ends with."""
    turns: list[Turn] = []
    frame = rng.choice(("Say {}. Is it {}?", "{}. Is this {}?", "The word is {}. Is {} the word?"))
    for _ in range(rng.choice((4, 5, 6))):
        word, other = world.sample_words(2, rng)
        yes = rng.random() < 0.5
        question = w.with_suffix(frame.format(word, word if yes else other), w.YES_NO, 0.3, rng)
        turns.append(Turn(question, "Yes" if yes else "No", "same", word))
    return Conversation(tuple(turns))


def comparing_talk(world: World, rng: random.Random) -> Conversation:
    """Often what a comparison ends with, dense and without a picture; else as `text_talk`."""
    return rng.choices((telling_same, text_talk), (4, 6))[0](world, rng)


def practice_turn(world: World, rng: random.Random) -> Turn:
    """A practice question that needs no knowledge of countries."""
    return rng.choice((reading, reading, copying, word_list, spelling, kind_of))(world, rng)


def reading_beside_picture(world: World, rng: random.Random) -> Conversation:
    """Text questions while some picture is shown that does not matter, or matters for one of them."""
    i = rng.randrange(len(world.things))
    turns = [practice_turn(world, rng), tasks.thing_turn(world, i, rng)]
    rng.shuffle(turns)
    return Conversation(tuple(turns), "thing", i)


def invented_item(world: World, rng: random.Random) -> Conversation:
    """A made-up flag with a made-up country's statements, then questions about both."""
    i = rng.randrange(len(world.fakes))
    place = invented_place(rng)
    values = world.sample_words(2, rng)
    keys = rng.sample(KEYS, 2)
    lines = [tasks.sentence_of(k, place, v) for k, v in zip(keys, values, strict=True)]
    story = f"This is the flag of {place}. " + " ".join(lines) + " "
    target = rng.randrange(2)
    question = story + w.fact_question(keys[target], None if rng.random() < 0.6 else place, rng)
    turns = [Turn(question, values[target], "read-flag")]
    if rng.random() < 0.5:
        turns.append(Turn(w.pick(w.NAME, rng), place, "read-flag"))
    else:
        turns.append(Turn(rng.choice(w.FOLLOW_UP[keys[1 - target]]), values[1 - target], "read-flag"))
    turns.append(tasks.flag_colours(world.fakes[i][1], rng))
    return Conversation(tuple(turns), "fake", i)


__all__ = [
    "comparing_talk",
    "invented_item",
    "other_values",
    "practice_turn",
    "reading_beside_picture",
    "text_talk",
    "text_turn",
]
