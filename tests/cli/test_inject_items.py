"""Items as people have them, through the whole command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from tests.cli.command import kore

TEXT = "the old harbour keeps a long record of what was built moved sold and found there"
WORDS = TEXT.split()
QUICK = (
    "--set",
    "train.max_steps=2",
    "--set",
    "train.batch=4",
    "--set",
    "eval.max_new_tokens=4",
    "--set",
    "calibrate.count=8",
    "--set",
    "adapter.rank=4",
    "--set",
    "augment.copies=1",
    "--samples",
    "demo:16",
    "--suite",
    "agreement",
)


def prose(count: int, subject: str) -> str:
    """About `count` words in sentences of different lengths."""
    said: list[str] = []
    number = 0
    while len(said) < count:
        size = 6 + (7 * number) % 19
        body = [WORDS[(number + i) % len(WORDS)] for i in range(size)]
        said += [subject, "in", str(1800 + number), *body[:-1], f"{body[-1]}."]
        number += 1
    return " ".join([*said[: count - 1], said[count - 1].rstrip(".") + "."])


def twenty() -> list[dict[str, Any]]:
    """Game units, catalogue products, museum objects and news."""
    stats = {
        "cost": 350,
        "health": 120.5,
        "armour": "heavy",
        "speed": 4,
        "range": "7 tiles",
        "built by": "Foundry",
        "needs": ["Forge", "Iron Road"],
        "role": "siege",
        "weak against": "Skirmisher",
        "upgrade": "Ironclad Ram",
        "population": 3,
        "crew": 12,
    }

    def some(count: int) -> dict[str, Any]:
        return dict(list(stats.items())[:count])

    units = [
        ("Ember Ram", 5, 40),
        ("Zhar-Ptitsa", 12, 180),
        ("Жар-птица", 7, 90),
        ("Ξιφίας", 3, 5),
        ("Scout", 0, 12),
    ]
    products = [
        ("Lamp XR-200/B", 6, 60),
        ("Kaffeemühle «Größe 2»", 4, 300),
        ("急須 常滑焼", 5, 25),
        ('Shelf 47" (oak)', 12, 900),
        ("Mug", 0, 5),
    ]
    objects = [
        ("Bronze Mirror of Veii", 8, 250),
        ("مصباح نحاسي", 4, 30),
        ("Amphora 1887,0725.30", 11, 600),
        ("Codex Ríos", 2, 120),
        ("Shard", 1, 7),
    ]
    news = [
        ("Harbour bridge reopens after nine years of repairs", 0, 900),
        ("Storm Aila reaches Port Selwyn", 3, 400),
        ("新しい図書館が開館", 2, 15),
        ("Council votes 31 to 12 for tram line 7", 5, 220),
        ("Strike ends", 1, 6),
    ]
    groups = [
        ("unit", "entity", units),
        ("product", "entity", products),
        ("museum object", "entity", objects),
    ]
    items = []
    for type_, kind, rows in [*groups, ("local news", "news", news)]:
        for title, facts, length in rows:
            number = len(items)
            items.append(
                {
                    "id": f"item-{number}",
                    "kind": kind,
                    "type": type_,
                    "title": title,
                    "text": prose(length, title),
                    "image": f"images/{number}.png",
                    "facts": some(facts),
                }
            )
    return items


def write(folder: Path, items: list[dict[str, Any]]) -> Path:
    (folder / "images").mkdir()
    for number, item in enumerate(items):
        size = (40 + 37 * number, 300 - 11 * number)
        image = Image.new("RGB", size, (11 * number % 256, 200 - 7 * number, 90))
        ImageDraw.Draw(image).ellipse((5, 5, 30 + number, 25 + number), fill=(250, 240 - 9 * number, 10))
        image.save(folder / item["image"])
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), encoding="utf-8")
    return path


def test_twenty_items_of_four_kinds_are_planned_and_taught(tmp_path: Path) -> None:
    items = write(tmp_path, twenty())
    planned = kore("inject", items, *QUICK, "--dry-run", "--json")
    assert planned.returncode == 0, planned.stderr
    expected = json.loads(planned.stdout)["augment"]["fit"]
    assert expected["split"] and not expected["estimated"]
    done = kore("inject", items, *QUICK, "-o", tmp_path / "run", "--json", timeout=600)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert len(outcome["verdicts"]) == 20
    assert {one["where"] for one in outcome["verdicts"]} >= {f"{items}:1", f"{items}:20"}
    assert " items learned" in outcome["headline"] and "% kept" in outcome["headline"]
    assert outcome["advice"]["command"].startswith("kore inject")
    report = json.loads((tmp_path / "run" / "tree" / "report.json").read_text())["fit"]
    assert expected["split"].keys() == report["split"].keys() and not report["not_taught"]


def test_items_that_fit_nowhere_end_with_their_names_and_a_remedy(tmp_path: Path) -> None:
    item = {**twenty()[0], "facts": {}, "title": "Ember " * 400, "text": "Ember " * 400}
    items = write(tmp_path, [item])
    done = kore("inject", items, *QUICK, "-o", tmp_path / "run")
    assert done.returncode == 3 and "samples.jsonl" not in done.stderr
    assert f"{items}:1: item item-0" in done.stderr and "train.max_length=512" in done.stderr
