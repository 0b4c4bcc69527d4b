"""First stage: the vision tower learns to tell pictures apart before any language is involved.

Labels: which old country, which thing and group, colour and shape of easy-VQA pictures, layout and colours
of made-up flags. Two views of a made-up flag are also to be closer to each other than to other made-up
flags, which keeps apart flags that were never seen.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from scripts.tiny_base.bank import Bank, normalise
from scripts.tiny_base.network import load_checkpoint, quick_halves, save_checkpoint
from scripts.tiny_base.pictures import COLOURS, LAYOUTS
from scripts.tiny_base.world import World

SHAPES = ("circle", "rectangle", "triangle")
SHAPE_COLOURS = ("red", "green", "blue", "black", "gray", "teal", "brown", "yellow")


class Heads(nn.Module):
    """Throw-away linear heads on the mean patch feature."""

    def __init__(self, world: World, width: int) -> None:
        super().__init__()
        groups = {thing.group for thing in world.things}
        sizes = {
            "flag": len(world.old),
            "thing": len(world.things),
            "group": len(groups),
            "shape": len(SHAPES),
            "shape_colour": len(SHAPE_COLOURS),
            "layout": len(LAYOUTS),
            "colours": len(COLOURS),
            "key": 96,
        }
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in sizes.items()})

    def forward(self, features: torch.Tensor, name: str) -> torch.Tensor:
        """Logits of head ``name`` for features ``[B, width]``."""
        out: torch.Tensor = self.heads[name](self.norm(features))
        return out


def patch_mean(tower: Any, pictures: torch.Tensor) -> torch.Tensor:
    """Mean of the patch features that the language model will see, ``[B, width]``."""
    out: torch.Tensor = tower(pixel_values=normalise(pictures)).last_hidden_state
    return out[:, 1:].float().mean(1)


def colour_targets(rows: list[list[str]]) -> torch.Tensor:
    """Multi-hot named colours ``[B, len(COLOURS)]``."""
    return torch.tensor([[float(c in row) for c in COLOURS] for row in rows])


def losses(
    tower: Any, heads: Heads, world: World, bank: Bank, rng: random.Random, size: int
) -> dict[str, torch.Tensor]:
    """Losses of one mixed batch, by head."""
    groups = sorted({thing.group for thing in world.things})
    flags = [rng.randrange(len(world.old)) for _ in range(size)]
    things = [rng.randrange(len(world.things)) for _ in range(size)]
    shapes = [rng.randrange(len(world.shapes)) for _ in range(size)]
    fakes = rng.sample(range(len(world.fakes)), size // 2)
    shots = [bank.draw("flag", world.old[i], rng) for i in flags]
    shots += [bank.draw("thing", i, rng) for i in things]
    shots += [bank.draw("shape", i, rng) for i in shapes]
    shots += [bank.draw("fake", i, rng) for i in fakes + fakes]
    with quick_halves():
        features = patch_mean(tower, torch.stack(shots))
    parts = torch.split(features.float(), [size, size, size, size // 2, size // 2])
    on_flag, on_thing, on_shape, on_fake, on_twin = parts
    known = [world.shapes[i] for i in shapes]
    shape_ids = [SHAPES.index(s.shape) if s.shape else -100 for s in known]
    paint_ids = [SHAPE_COLOURS.index(s.colour) if s.colour else -100 for s in known]
    layout_ids = [LAYOUTS.index(world.fakes[i][0]) for i in fakes]
    flag_paint = colour_targets([world.flag_colours[world.old[i]] for i in flags])
    fake_paint = colour_targets([world.fakes[i][1] for i in fakes])
    keys = F.normalize(heads(on_fake, "key"), dim=-1) @ F.normalize(heads(on_twin, "key"), dim=-1).T
    twins = torch.arange(len(fakes))

    def entropy(features: torch.Tensor, head: str, labels: list[int]) -> torch.Tensor:
        return F.cross_entropy(heads(features, head), torch.tensor(labels))

    return {
        "flag": 1.5 * entropy(on_flag, "flag", flags),
        "thing": entropy(on_thing, "thing", things),
        "group": 0.3 * entropy(on_thing, "group", [groups.index(world.things[i].group) for i in things]),
        "shape": 1.5 * entropy(on_shape, "shape", shape_ids),
        "shape_colour": entropy(on_shape, "shape_colour", paint_ids),
        "layout": 0.5 * entropy(on_fake, "layout", layout_ids),
        "colours": F.binary_cross_entropy_with_logits(
            heads(torch.cat((on_flag, on_fake)), "colours"), torch.cat((flag_paint, fake_paint))
        ),
        "twins": 0.5 * (F.cross_entropy(keys / 0.1, twins) + F.cross_entropy(keys.T / 0.1, twins)),
    }


def teach_sight(
    tower: Any,
    world: World,
    bank: Bank,
    steps: int,
    seed: int,
    checkpoint: Path,
    say: Callable[[str], None],
    every: int = 100,
) -> None:
    """Train ``tower`` in place for ``steps`` batches; a killed training goes on from ``checkpoint``."""
    torch.manual_seed(seed)
    heads = Heads(world, tower.config.hidden_size)
    weights = [*tower.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 1.2e-3, total_steps=steps + 1, pct_start=0.08, cycle_momentum=False
    )
    states = {"tower": tower, "heads": heads, "optimiser": optimiser, "schedule": schedule}
    done = load_checkpoint(checkpoint, states)
    if done:
        say(f"sight resumed at step {done}")
    started, means = time.monotonic(), dict[str, float]()
    for step in range(done + 1, steps + 1):
        parts = losses(tower, heads, world, bank, random.Random(f"{seed}:{step}"), 64)
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
        for name, loss in parts.items():
            means[name] = 0.95 * means.get(name, loss.item()) + 0.05 * loss.item()
        if step % every == 0 or step == 5:
            shown = " ".join(f"{name} {value:.2f}" for name, value in means.items())
            say(f"sight {step}/{steps} {time.monotonic() - started:.0f}s {shown}")
        if step % every == 0:
            save_checkpoint(checkpoint, states, step)


@torch.no_grad()
def new_flag_separation(tower: Any, world: World, seed: int = 5) -> float:
    """Share of views of new flags whose nearest flag, by mean feature, is the right one."""
    from scripts.tiny_base.bank import views_of

    gen = torch.Generator().manual_seed(seed)
    shots = views_of(world.pools["flag"], 8, 1.0, gen)
    count = shots.shape[0]
    features = patch_mean(tower, shots.flatten(0, 1)).view(count, 8, -1)
    centres = F.normalize(features[:, :4].mean(1), dim=-1)
    new = torch.tensor(world.new)
    probes = F.normalize(features[new, 4:], dim=-1)
    return float(((probes @ centres.T).argmax(-1) == new[:, None]).float().mean())
