"""A bank of ready-made views: each picture in many poses, so that training never waits for drawing."""

from __future__ import annotations

import random

import torch

from scripts.tiny_base.pictures import augment, shrink
from scripts.tiny_base.tokens import IMAGE_SIZE
from scripts.tiny_base.world import World

VIEWS = {"flag": 160, "thing": 80, "fake": 4}
STRENGTH = {"flag": 1.0, "thing": 0.7, "fake": 0.8}


def views_of(pictures: torch.Tensor, count: int, strength: float, gen: torch.Generator) -> torch.Tensor:
    """``count`` random views of each picture, uint8 ``[N, count, 3, IMAGE_SIZE, IMAGE_SIZE]``."""
    rows: list[torch.Tensor] = []
    for start in range(0, len(pictures), 64):
        part = pictures[start : start + 64]
        shots = [
            (shrink(augment(part, gen, strength), IMAGE_SIZE) * 255).round().to(torch.uint8)
            for _ in range(count)
        ]
        rows.append(torch.stack(shots, dim=1))
    return torch.cat(rows)


class Bank:
    """Views by pool; shapes are flipped and shifted when they are drawn."""

    def __init__(self, world: World, seed: int, share: float = 1.0) -> None:
        gen = torch.Generator().manual_seed(seed)
        old = torch.tensor(world.old)
        self.views = {
            pool: views_of(
                world.pools[pool][old] if pool == "flag" else world.pools[pool],
                max(1, round(VIEWS[pool] * share)),
                STRENGTH[pool],
                gen,
            )
            for pool in VIEWS
        }
        self.place = {int(i): k for k, i in enumerate(old)}
        self.shapes = world.pools["shape"]

    def draw(self, pool: str, index: int, rng: random.Random) -> torch.Tensor:
        """One view as uint8 ``[3, IMAGE_SIZE, IMAGE_SIZE]``."""
        if pool == "shape":
            picture = self.shapes[index]
            axes = [axis for axis in (1, 2) if rng.random() < 0.5]
            return picture.flip(axes) if axes else picture
        row = self.views[pool][self.place[index] if pool == "flag" else index]
        return row[rng.randrange(row.shape[0])]


def normalise(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 pictures to the processor's range: (x / 255 - 0.5) / 0.5."""
    return pictures.float() / 127.5 - 1.0
