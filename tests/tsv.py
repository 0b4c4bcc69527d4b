"""Benchmark files in VLMEvalKit's form, made of random cases with real pictures."""

from __future__ import annotations

import base64
import csv
import io
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from tests.oracle.cases import all_cases


def picture(seed: int, kind: str = "PNG") -> str:
    """A small picture as base64."""
    rng = random.Random(seed)
    image = Image.new("RGB", (24, 20), (rng.randrange(256), rng.randrange(256), rng.randrange(256)))
    stream = io.BytesIO()
    image.save(stream, kind)
    return base64.b64encode(stream.getvalue()).decode()


def write_tsv(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    """Write rows with all their columns."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, delimiter="\t", lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_all(folder: Path, count: int = 6, seed: int = 3) -> Path:
    """A data folder with all twelve benchmarks, each of about `count` rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for case in all_cases(seed, count):
        rows = [{**row, "image": picture(i)} for i, row in enumerate(case["rows"])]
        if case["name"] == "MMDU":
            for row in rows:
                row["question"] = row["question"].replace("['", "['<ImageHere><ImageHere> ", 1)
                row["image"] = repr([picture(1), picture(2)])
        if case["name"] == "MME":  # two questions about each picture, and pictures that are JPEG files
            for i, row in enumerate(rows):
                row["image"] = picture(i // 2, "JPEG")
                row["image_path"] = row["image_path"].replace(".png", ".jpg")
        if case["name"] == "MMMU_DEV_VAL":
            rows[0]["question"] = "See <image 2> and <image 1>: which?"
            rows[0]["image"] = repr([picture(1), picture(2)])
        if case["name"] == "POPE":
            rows[1]["image"] = rows[0]["index"]
        write_tsv(folder / f"{case['name']}.tsv", rows)
    return folder
