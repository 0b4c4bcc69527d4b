"""Second and third stage: the whole model learns from conversations, first to know, then to compare."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from scripts.tiny_base import tasks, text_tasks
from scripts.tiny_base.bank import Bank, normalise
from scripts.tiny_base.drills import DRILLS
from scripts.tiny_base.network import load_checkpoint, quick_halves, save_checkpoint
from scripts.tiny_base.tokens import Encoder
from scripts.tiny_base.world import Conversation, World

Maker = Callable[[World, random.Random], Conversation]
KNOWING: tuple[tuple[Maker, float], ...] = (
    (tasks.country_talk, 46.0),
    (tasks.thing_talk, 22.0),
    (tasks.shape_talk, 14.0),
    (tasks.fake_talk, 5.0),
    (text_tasks.reading_beside_picture, 5.0),
    (text_tasks.invented_item, 7.0),
)
COMPARING: tuple[tuple[Maker, float], ...] = (
    (partial(tasks.country_talk, comparing=True), 30.0),
    (partial(tasks.thing_talk, comparing=True), 42.0),
    (tasks.shape_talk, 14.0),
    (tasks.fake_talk, 3.0),
    (text_tasks.reading_beside_picture, 5.0),
    (text_tasks.invented_item, 6.0),
)


@dataclass(frozen=True)
class Plan:
    """Size and pace of one stage; when ``comparing``, a yes/no or a choice says its reason first.

    The first ``drills`` of the ``steps`` practise the mechanics of comparing alone (`drills`).
    """

    steps: int
    comparing: bool = False
    drills: int = 0
    seed: int = 0
    seeing: int = 36
    reading: int = 18
    rate: float = 1.0e-3
    sight_rate: float = 2.0e-4
    warm_up: int = 150
    horizon: float = 1.3  # the rate falls as if there were this many times the steps
    ahead: int = 4


def comparing_plan(drills: int, steps: int, seed: int) -> Plan:
    """The third stage: a fresh optimiser, and a rate that falls to the end."""
    return Plan(drills + steps, comparing=True, drills=drills, seed=seed, warm_up=50, horizon=1.0)


@dataclass
class Batch:
    """Right-padded token ids ``[B, T]``, labels, weights, the task of each label, pictures or None."""

    ids: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor
    tasks: list[str]
    owner: torch.Tensor
    pictures: torch.Tensor | None


def collate(
    talks: list[Conversation], encoder: Encoder, bank: Bank, rng: random.Random, reasons: bool
) -> Batch:
    """Pad conversations to one length; each answer weighs as the root of its length."""
    rows = [encoder.conversation(talk, reasons) for talk in talks]
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), longest), encoder.pad)
    labels = torch.full((len(rows), longest), -100)
    weights = torch.zeros(len(rows), longest)
    owner = torch.zeros(len(rows), longest, dtype=torch.long)
    names: list[str] = []
    for k, ((row, target), talk) in enumerate(zip(rows, talks, strict=True)):
        ids[k, : len(row)] = torch.tensor(row)
        labels[k, : len(row)] = torch.tensor(target)
        turn, spot = -1, 0
        while spot < len(target):
            if target[spot] == -100:
                spot += 1
                continue
            end = spot
            while end < len(target) and target[end] != -100:
                end += 1
            turn += 1
            names.append(talk.turns[turn].task)
            weights[k, spot:end] = (end - spot) ** -0.5
            if reasons and talk.turns[turn].reason:
                weights[k, end - 2 : end] = 1.0  # the verdict, behind its reason
            owner[k, spot:end] = len(names) - 1
            spot = end
    pictures = None
    if talks[0].pool is not None:
        pictures = torch.stack([bank.draw(t.pool or "", t.index, rng) for t in talks])
    return Batch(ids, labels, weights, names, owner, pictures)


def drill(world: World, encoder: Encoder, rng: random.Random, size: int = 14) -> Batch:
    """``size`` rows of each drill; every drill weighs the same."""
    rows = [(name, make(world, encoder, rng)) for name, make in DRILLS.items() for _ in range(size)]
    longest = max(len(ids) for _, (ids, _) in rows)
    ids = torch.full((len(rows), longest), encoder.pad)
    labels = torch.full((len(rows), longest), -100)
    for k, (_, (row, target)) in enumerate(rows):
        ids[k, : len(row)] = torch.tensor(row)
        labels[k, : len(row)] = torch.tensor(target)
    asked = (labels != -100).float()
    owner = torch.arange(len(rows))[:, None].expand_as(ids)
    return Batch(ids, labels, asked / asked.sum(1, keepdim=True), [name for name, _ in rows], owner, None)


class Feed:
    """An endless supply of (picture batch, text batch) pairs, each of talks of like length."""

    def __init__(self, world: World, encoder: Encoder, bank: Bank, plan: Plan, first: int) -> None:
        self.world, self.encoder, self.bank, self.plan = world, encoder, bank, plan
        self.ready: list[tuple[Batch, ...]] = []
        drawn = max(0, first - plan.drills) % plan.ahead  # of a draw of several steps that was begun before
        self.step = first - drawn
        for _ in range(drawn):
            self.next()

    def next(self) -> tuple[Batch, ...]:
        """The batches of the next step."""
        if not self.ready:
            self.refill()
        return self.ready.pop()

    def refill(self) -> None:
        """Draw talks for a few steps, and group them by length."""
        plan, comparing = self.plan, self.plan.comparing
        rng = random.Random(f"{plan.seed} {'comparing ' if comparing else ''}{self.step}")
        if self.step < plan.drills:
            self.ready = [(drill(self.world, self.encoder, rng),)]
            self.step += 1
            return
        makers, odds = zip(*(COMPARING if comparing else KNOWING), strict=True)
        seeing = [m(self.world, rng) for m in rng.choices(makers, odds, k=plan.ahead * plan.seeing)]
        text = text_tasks.comparing_talk if comparing else text_tasks.text_talk
        reading = [text(self.world, rng) for _ in range(plan.ahead * plan.reading)]
        groups: list[list[Batch]] = []
        for talks, size in ((seeing, plan.seeing), (reading, plan.reading)):
            talks.sort(key=lambda talk: sum(len(self.encoder.pieces(t.question)) for t in talk.turns))
            parts = [talks[k : k + size] for k in range(0, len(talks), size)]
            rng.shuffle(parts)
            groups.append([collate(part, self.encoder, self.bank, rng, comparing) for part in parts])
        self.ready = list(zip(groups[0], groups[1], strict=True))
        self.step += plan.ahead


def answer_losses(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cross-entropy, weight and turn number of every answer token (each ``[N]``)."""
    pixels = None if batch.pictures is None else normalise(batch.pictures)
    with quick_halves():
        hidden = model.model(input_ids=batch.ids, pixel_values=pixels, use_cache=False)[0]
        asked = batch.labels[:, 1:] != -100
        logits = model.lm_head(hidden[:, :-1][asked])
    loss = F.cross_entropy(logits.float(), batch.labels[:, 1:][asked], reduction="none")
    return loss, batch.weights[:, 1:][asked], batch.owner[:, 1:][asked]


def rate_at(step: int, plan: Plan) -> float:
    """Factor on the learning rates: linear warm-up, then a cosine down to 0.03."""
    if step < plan.warm_up:
        return (step + 1) / plan.warm_up
    horizon = round(plan.horizon * plan.steps)
    done = (step - plan.warm_up) / max(1, horizon - plan.warm_up)
    return 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def build_optimiser(model: Any, plan: Plan) -> torch.optim.AdamW:
    """AdamW with a lower rate for the pretrained tower, no decay on vectors."""
    groups: list[dict[str, Any]] = []
    for sight in (True, False):
        for decay in (True, False):
            chosen = [
                weight
                for name, weight in model.named_parameters()
                if ("vision_tower" in name) == sight and (weight.ndim > 1) == decay
            ]
            rate = plan.sight_rate if sight else plan.rate
            groups.append(
                {"params": chosen, "lr": rate, "base": rate, "weight_decay": 0.05 if decay else 0.0}
            )
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)


def teach(
    model: Any,
    world: World,
    encoder: Encoder,
    bank: Bank,
    plan: Plan,
    checkpoint: Path,
    say: Callable[[str], None],
    every: int,
    look: Callable[[int], object],
) -> None:
    """Train in place; ``look(step)`` is called every ``every`` steps; resumes from ``checkpoint``."""
    optimiser = build_optimiser(model, plan)
    parts = {"model": model, "optimiser": optimiser}
    step = load_checkpoint(checkpoint, parts)
    if step:
        model.tie_weights()
        say(f"resumed at step {step}")
    feed = Feed(world, encoder, bank, plan, step)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    means: dict[str, float] = {}
    started, talks, answers = time.monotonic(), 0, 0
    model.train()
    while step < plan.steps:
        for group in optimiser.param_groups:
            group["lr"] = group["base"] * rate_at(step, plan)
        batches = feed.next()
        whole = sum(float(batch.weights.sum()) for batch in batches)
        optimiser.zero_grad(set_to_none=True)
        for batch in batches:
            loss, weight, owner = answer_losses(model, batch)
            ((loss * weight).sum() / whole).backward()  # type: ignore[no-untyped-call]
            talks, answers = talks + len(batch.ids), answers + len(batch.tasks)
            if step % 5 == 0:
                track(means, loss.detach(), owner, batch.tasks)
        norm = nn.utils.clip_grad_norm_(weights, 1.0)
        if not torch.isfinite(norm):
            raise FloatingPointError(f"gradient norm {norm} at step {step}")
        optimiser.step()
        step += 1
        if step % 50 == 0:
            spent = time.monotonic() - started
            shown = " ".join(f"{name} {value:.2f}" for name, value in sorted(means.items()))
            say(
                f"step {step}/{plan.steps} {spent:.0f}s {talks / spent:.1f} talks/s "
                f"{answers / spent:.1f} answers/s | {shown}"
            )
        if step % every == 0 or step == plan.steps:
            save_checkpoint(checkpoint, parts, step)
            model.eval()
            look(step)
            model.train()
    model.eval()


def track(means: dict[str, float], loss: torch.Tensor, owner: torch.Tensor, names: list[str]) -> None:
    """Running mean of the loss per answer token, by task."""
    count = len(names)
    total = torch.zeros(count).scatter_add_(0, owner, loss)
    tokens = torch.zeros(count).scatter_add_(0, owner, torch.ones_like(loss))
    for name, value in zip(names, (total / tokens.clamp(min=1)).tolist(), strict=True):
        means[name] = 0.98 * means.get(name, value) + 0.02 * value
