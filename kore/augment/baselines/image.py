"""Changed pictures: gently, so that they mean the same, or by blind turns, flips and colours."""

from __future__ import annotations

import io
import random
from pathlib import Path

from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from kore.io.images import open_image


def change(path: Path, seed: int, purpose: str, *, gently: bool) -> bytes:
    """A changed copy of a picture, as PNG bytes, the same for the same seed and purpose.

    gently: a slight crop, brightness, contrast, softness: what it shows can still be told by orientation,
    text and
    colour. Otherwise: a rotation by up to 180 degrees, flips and shifted colours.
    """
    rng = random.Random(f"{seed}:{purpose}:{'gentle' if gently else 'blind'}")
    picture = open_image(path)
    picture = _gentle(picture, rng) if gently else _blind(picture, rng)
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def _gentle(picture: Image.Image, rng: random.Random) -> Image.Image:
    width, height = picture.size
    share = rng.uniform(0.88, 0.97)
    inner = max(8, int(width * share)), max(8, int(height * share))
    left, top = rng.randint(0, max(0, width - inner[0])), rng.randint(0, max(0, height - inner[1]))
    picture = picture.crop((left, top, left + inner[0], top + inner[1])).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    picture = ImageEnhance.Brightness(picture).enhance(rng.uniform(0.85, 1.15))
    picture = ImageEnhance.Contrast(picture).enhance(rng.uniform(0.85, 1.15))
    return picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.6)))


def _blind(picture: Image.Image, rng: random.Random) -> Image.Image:
    picture = picture.rotate(
        rng.uniform(-180, 180), Image.Resampling.BICUBIC, expand=True, fillcolor=(127, 127, 127)
    )
    if rng.random() < 0.5:
        picture = ImageOps.mirror(picture)
    if rng.random() < 0.5:
        picture = ImageOps.flip(picture)
    hue, saturation, value = picture.convert("HSV").split()
    shift = rng.randint(20, 235)
    hue = hue.point([(level + shift) % 256 for level in range(256)])
    picture = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    return ImageEnhance.Color(picture).enhance(rng.uniform(0.5, 1.5))
