"""Peak memory of augmenting as many items as KORE-74K has, with pictures and the classic encoder.

    python benchmarks/augment_memory.py --items 9422

Makes items with texts of 170 words in a made-up language of natural word frequencies, a picture of each and two more in a folder to find, grows them by the
offline teacher, and prints one JSON object. Everything lies in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from kore.augment import grow
from kore.config.schema import AugmentSection
from kore.data.evoke import read_items

VOCABULARY = 20_000
SYLLABLES = (
    "ba",
    "den",
    "fir",
    "gol",
    "hu",
    "kem",
    "lo",
    "mar",
    "nis",
    "ort",
    "pel",
    "qua",
    "rin",
    "sto",
    "tu",
    "vel",
    "wes",
    "yo",
)


def word(number: int) -> str:
    """The `number`-th word of a made-up language."""
    made = SYLLABLES[number % 18]
    while number := number // 18:
        made += SYLLABLES[number % 18]
    return made


def make(folder: Path, count: int) -> None:
    """Items, their pictures and pictures to find."""
    (folder / "images").mkdir()
    (folder / "found").mkdir()
    rng = np.random.default_rng(0)
    with (folder / "items.jsonl").open("w", encoding="utf-8") as stream:
        for number in range(count):
            title = f"Place {number}"
            blocks = rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)
            picture = Image.fromarray(blocks).resize((224, 224), Image.Resampling.BILINEAR)
            picture.save(folder / "images" / f"{number}.jpg")
            for turn in (1, 2):
                picture.rotate(15 * turn).save(folder / "found" / f"Place {number} {turn}.jpg")
            # words as frequent as in a real language: few everywhere, most of them rare
            ranks = np.minimum(rng.zipf(1.2, (10, 6)), VOCABULARY) + 400
            people = rng.integers(0, VOCABULARY, (10, 2)) + 400
            text = " ".join(
                f"The {word(a)} {word(b)} of {title} opened in {1900 + int(n)} by {word(p).title()} {word(q).title()} "
                f"near the {word(c)} {word(d)} {word(e)} {word(f)}."
                for (a, b, c, d, e, f), (p, q), n in zip(
                    ranks.tolist(), people.tolist(), rng.integers(0, 120, 10), strict=True
                )
            )
            item = {"id": f"p{number}", "kind": "entity", "type": "place", "title": title, "text": text}
            stream.write(json.dumps({**item, "image": f"images/{number}.jpg"}) + "\n")


def main() -> None:
    """Make, grow, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=9422)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["KORE_CACHE"] = str(folder / "kept")
        make(folder, given.items)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start, cpu = time.perf_counter(), time.process_time()
        found = list(read_items(str(folder / "items.jsonl")))
        section = AugmentSection(
            teacher="offline", images=f"local:{folder / 'found'}", negatives=0.5, forest=True
        )
        report = grow(found, section, folder / "out")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        result = {
            "items": given.items,
            "samples": report.values["statistics"]["samples"],
            "seconds": round(time.perf_counter() - start, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
            "peak_rss_mib": peak >> 10,
            "rss_before_mib": before >> 10,
        }
    json.dump(result, sys.stdout)
    print()


if __name__ == "__main__":
    main()
