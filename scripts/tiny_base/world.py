"""Everything the base is taught about: countries, things, made-up flags, shapes; and words to practise on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from scripts.tiny_base import pictures
from scripts.tiny_base.facts import KEYS, Country, cities, countries
from scripts.tiny_base.things import thing_table

SHAPES = ("circle", "rectangle", "triangle")
SHAPE_COLOURS = ("red", "green", "blue", "black", "gray", "teal", "brown", "yellow")

CITIES = 500
PEOPLE = (
    "Tom",
    "Anna",
    "Ben",
    "Clara",
    "David",
    "Emma",
    "Frank",
    "Grace",
    "Henry",
    "Iris",
    "Jack",
    "Kate",
    "Leo",
    "Mary",
    "Nina",
    "Oscar",
    "Paul",
    "Rosa",
    "Sam",
    "Tina",
    "Victor",
    "Wendy",
)
BEGINNINGS = (
    "Zor",
    "Vin",
    "Kal",
    "Mer",
    "Tor",
    "Bal",
    "Nor",
    "Gal",
    "Fen",
    "Dra",
    "Lum",
    "Pol",
    "Ras",
    "Sil",
    "Hol",
    "Cam",
    "Wes",
    "Yor",
    "Quin",
    "Ost",
)
ENDINGS = (
    "land",
    "toria",
    "via",
    "nia",
    "mar",
    "stan",
    "dor",
    "wick",
    "ten",
    "ora",
    "esia",
    "burg",
    "opia",
    "ros",
    "dale",
)


@dataclass(frozen=True)
class Turn:
    """One question and its answer; ``task`` names what it practises.

    ``reason`` is what a comparison rests on: the true name or fact. Said first, it leaves only two words
    of one text to compare, which a small model learns; to compare unsaid it does not.
    """

    question: str
    answer: str
    task: str
    reason: str = ""

    @property
    def spoken(self) -> str:
        """The answer behind its reason, ``Norway, so no``; of a choice the option's text alone."""
        if not self.reason:
            return self.answer
        return self.reason if len(self.answer) == 1 else f"{self.reason}, so {self.answer.lower()}"


@dataclass(frozen=True)
class Conversation:
    """Turns about one picture (``pool`` and index) or about none."""

    turns: tuple[Turn, ...]
    pool: str | None = None
    index: int = 0


@dataclass(frozen=True)
class Thing:
    """A picture that is no flag."""

    name: str
    group: str
    colour: str

    @property
    def a_name(self) -> str:
        """Name with its article."""
        return with_article(self.name)


@dataclass(frozen=True)
class Shape:
    """One easy-VQA picture: what it shows and the questions that come with it."""

    colour: str
    shape: str
    questions: tuple[tuple[str, str], ...]


@dataclass
class World:
    """All pictures (uint8 tensors by pool) and what is known about each."""

    countries: list[Country]
    flag_colours: list[list[str]]
    things: list[Thing]
    fakes: list[tuple[str, list[str]]]
    shapes: list[Shape]
    test_shapes: list[Shape]
    pools: dict[str, torch.Tensor]
    words: list[str]
    pairs: dict[str, set[int]] = field(default_factory=dict)

    @property
    def old(self) -> list[int]:
        """Indices of old countries."""
        return [i for i, country in enumerate(self.countries) if not country.new]

    @property
    def new(self) -> list[int]:
        """Indices of new countries."""
        return [i for i, country in enumerate(self.countries) if country.new]

    def sample_words(self, count: int, rng: random.Random) -> list[str]:
        """Distinct words, never two that belong to the same new country."""
        while True:
            chosen = rng.sample(self.words, count)
            owners = [owner for word in chosen for owner in self.pairs.get(word, ())]
            if len(owners) == len(set(owners)):
                return chosen


def with_article(noun: str) -> str:
    """``a fox``, ``an owl``, ``scissors``."""
    if noun.endswith("s") and noun not in ("bus", "cactus", "octopus", "lotus", "walrus"):
        return noun
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def shown_by(text: str, answer: str) -> str:
    """The colour or shape that a yes/no question and its answer give away, or nothing."""
    denied = " not " in f" {text} " or text.startswith("is no ")
    if answer not in ("yes", "no") or (answer == "yes") == denied:
        return ""
    return mentioned(text)


def mentioned(text: str) -> str:
    """The colour or shape that a yes/no question of easy-VQA asks for."""
    words = set(text.lower().rstrip("?").split())
    return next((word for word in (*SHAPES, *SHAPE_COLOURS) if word in words), "")


def load_shapes(test: bool) -> tuple[torch.Tensor, list[Shape]]:
    """The easy-VQA pictures as uint8 ``[N, 3, 64, 64]`` with their questions."""
    import easy_vqa

    if test:
        texts, answers, ids = easy_vqa.get_test_questions()
        paths = easy_vqa.get_test_image_paths()
    else:
        texts, answers, ids = easy_vqa.get_train_questions()
        paths = easy_vqa.get_train_image_paths()
    found: dict[int, list[tuple[str, str]]] = {}
    for text, answer, picture in zip(texts, answers, ids, strict=True):
        found.setdefault(picture, []).append((text, answer))
    rows: list[Shape] = []
    raw: list[torch.Tensor] = []
    for picture, questions in sorted(found.items()):
        known = {answer for _, answer in questions} | {shown for q in questions if (shown := shown_by(*q))}
        shape = next((s for s in SHAPES if s in known), "")
        colour = next((c for c in sorted(known - {"yes", "no", shape}) if c), "")
        rows.append(Shape(colour, shape, tuple(questions)))
        with Image.open(Path(paths[picture])) as opened:
            raw.append(pictures.to_tensor(opened.convert("RGB"))[:3])
    return torch.stack(raw), rows


def build_world(seed: int = 0, fakes: int = 3000) -> World:
    """Render everything; takes about half a minute."""
    rng = random.Random(seed)
    known = countries()
    flags = torch.stack([pictures.render(country.flag_code, flag=True) for country in known])
    rows = thing_table()
    shown = torch.stack([pictures.render(code, flag=False) for _, _, code in rows])
    things = [
        Thing(name, group, pictures.main_colours(image)[0])
        for (name, group, _), image in zip(rows, shown, strict=True)
    ]
    made = [pictures.fake_flag(rng) for _ in range(fakes)]
    shape_images, shapes = load_shapes(test=False)
    test_images, test_shapes = load_shapes(test=True)
    words = [word for country in known for word in (country.name, *country.facts.values())]
    words = list(dict.fromkeys(words + [thing.name for thing in things]))
    words += [city for city in cities(2 * CITIES) if city not in words][:CITIES]
    pairs: dict[str, set[int]] = {}
    for i, country in enumerate(known):
        if country.new:
            for word in country.words:
                pairs.setdefault(word, set()).add(i)
    return World(
        countries=known,
        flag_colours=[pictures.main_colours(flag) for flag in flags],
        things=things,
        fakes=[(layout, pictures.main_colours(image)) for image, layout in made],
        shapes=shapes,
        test_shapes=test_shapes,
        pools={
            "flag": flags,
            "thing": shown,
            "fake": torch.stack([image for image, _ in made]),
            "shape": shape_images,
            "test_shape": test_images,
        },
        words=words,
        pairs=pairs,
    )


def invented_place(rng: random.Random) -> str:
    """A name of a country that does not exist."""
    return rng.choice(BEGINNINGS) + rng.choice(ENDINGS)


def other_values(world: World, key: str, value: str, count: int, rng: random.Random) -> list[str]:
    """Distinct wrong values for ``key``, from old countries, as frequent as they occur there."""
    wrong: list[str] = []
    while len(wrong) < count:
        country = world.countries[rng.choice(world.old)]
        guess = country.name if key == "name" else country.fact(key)
        if guess != value and guess not in wrong:
            wrong.append(guess)
    return wrong


def choice_turn(
    question: str, right: str, wrong: Sequence[str], suffix: str, task: str, rng: random.Random
) -> Turn:
    """A question with options A to D; the answer is the letter, and the option's text its reason."""
    options = [right, *wrong]
    rng.shuffle(options)
    mark = rng.choice(("{}. {}", "{}. {}", "{}. {}", "{}) {}", "({}) {}"))
    lines = [mark.format(letter, text) for letter, text in zip("ABCD", options, strict=True)]
    text = question + "\n" + "\n".join(lines) + "\n" + suffix
    return Turn(text, "ABCD"[options.index(right)], task, right)


__all__ = [
    "CITIES",
    "KEYS",
    "PEOPLE",
    "SHAPES",
    "SHAPE_COLOURS",
    "Conversation",
    "Shape",
    "Thing",
    "Turn",
    "World",
    "build_world",
    "choice_turn",
    "invented_place",
    "mentioned",
    "other_values",
    "with_article",
]
