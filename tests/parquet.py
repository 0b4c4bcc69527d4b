"""A small copy of LLaVA-OneVision-Data, with rows that cannot be used."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from kore.config.schema import ONEVISION_SUBSETS


def png(shade: int = 90) -> bytes:
    """A small image."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 20, 30)).save(stream, "PNG")
    return stream.getvalue()


def write_onevision(root: Path) -> Path:
    """Four subsets of twelve rows in two files and several row groups; every third row is unusable."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    for name in ONEVISION_SUBSETS:
        (root / name).mkdir(parents=True)
        for part in range(2):
            rows = []
            for n in range(part * 6, part * 6 + 6):
                data = [png(n), b"broken", None][(n % 3 == 0) + (n % 6 == 0)]
                turns = [
                    {"from": "human", "value": f"<image>\nQuestion {n}?"},
                    {"from": "gpt", "value": f"Answer {n}"},
                ]
                rows.append(
                    {"id": f"{n}", "image": {"bytes": data, "path": f"{n}.png"}, "conversations": turns}
                )
            parquet.write_table(
                pa.Table.from_pylist(rows),
                root / name / f"train-{part:05d}-of-00002.parquet",
                row_group_size=4,
            )
    return root
