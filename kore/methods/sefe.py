"""SEFE (Chen et al. 2025): answers in several styles, and LoRA that keeps chosen elements of Delta W small.

RegLoRA: a LoRA is first trained on the retention samples; of its Delta W = B A the 2 % single elements of
largest absolute value in each matrix are what old answers hang on. Then the LoRA starts anew, with

    L = L_ce + 2500 * mean over matrices of mean |(B A)[chosen]|

without the scale alpha / r. In the continual setting the first LoRA is an earlier task's and is merged; in
one injection step old knowledge is the base's own already, so it serves for the choice alone.

Answer styles (ASD): 20 % of the short answers are asked for as yes/no or multiple choice instead, wrong
ones being other answers to the same question. The explanation styles of the original need a language
model and are not made here.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from kore.adapters.lora_layers import beside, lora_layers
from kore.data.records import Message, Sample
from kore.methods.base import MethodSettings, Setup, Traits
from kore.methods.lora import Lora
from kore.models.collate import collate

SHORT = 6  # words of a short answer
LETTERS = "ABCD"


class SefeSettings(MethodSettings):
    strength: float = Field(default=2500.0, ge=0)
    """Weight of the regularisation."""
    share: float = Field(default=0.02, gt=0, le=1)
    """Share of elements that are chosen, per matrix."""
    styles: float = Field(default=0.2, ge=0, le=1)
    """Share of the short answers that are asked for in another style."""
    old_steps: int = Field(default=40, ge=1)
    """Steps of the LoRA on the retention samples."""
    old_lr: float = Field(default=2e-3, gt=0)
    """Its learning rate."""


class Sefe(Lora):
    """Change little where old answers live."""

    name = "sefe"
    traits = Traits(
        zero=(0, 1, 2),
        needs_old=True,
        why="its penalty reads whole factors, which ZeRO-3 does not keep together",
    )
    Settings = SefeSettings

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        super().__init__(values)
        self.chosen: dict[str, Tensor] = {}
        self.last = 0.0

    def mix(self, samples: Sequence[Sample], old: Sequence[Sample], seed: int) -> list[Sample]:
        assert isinstance(self.settings, SefeSettings)
        return diversified(samples, self.settings.styles, seed)

    def begin(self, setup: Setup) -> None:
        assert isinstance(self.settings, SefeSettings)
        model = setup.backbone.model
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        fresh = {n: p.detach().clone() for n, p in trained.items()}
        self._train_on_old(setup, trained)
        for name, layer in lora_layers(model).items():
            product = (layer.lora_B["default"].weight @ layer.lora_A["default"].weight).detach().abs()
            count = max(1, round(self.settings.share * product.numel()))
            self.chosen[name] = product.flatten().topk(count).indices.sort().values
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(fresh[name])

    def _train_on_old(self, setup: Setup, trained: Mapping[str, Any]) -> None:
        assert isinstance(self.settings, SefeSettings)
        model, device = setup.backbone.model, setup.backbone.device
        chosen = random.Random(setup.seed)
        optimiser = torch.optim.AdamW(list(trained.values()), lr=self.settings.old_lr, weight_decay=0.0)
        model.train()
        for _ in range(self.settings.old_steps):
            drawn = chosen.sample(list(setup.old), min(setup.batch, len(setup.old)))
            inputs = collate([setup.encoder.training(s) for s in drawn], setup.encoder.pad_id)
            with setup.forward():
                loss = model(**{k: v.to(device) for k, v in inputs.items()}).loss
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()

    def penalty(self, model: Any, inputs: Mapping[str, Tensor], logits: Tensor | None) -> Tensor:
        assert isinstance(self.settings, SefeSettings)
        layers = lora_layers(model)
        total = torch.zeros((), device=inputs["labels"].device)
        for name, layer in layers.items():
            product = layer.lora_B["default"].weight.float() @ layer.lora_A["default"].weight.float()
            total = total + product.flatten()[self.chosen[name].to(product.device)].abs().mean()
        value = self.settings.strength * total / len(layers)
        self.last = float(value.detach())
        return value

    def extra_memory(self, model: Any, tokens: int) -> int:
        """The places of the chosen elements."""
        assert isinstance(self.settings, SefeSettings)
        layers = lora_layers(model).values()
        return int(sum(8 * self.settings.share * m.out_features * m.in_features for m in layers))

    def note(self) -> str:
        return f"SEFE's penalty at the last step: {self.last:.3g}"

    def state(self) -> dict[str, Tensor]:
        return dict(self.chosen)

    def restore(self, state: Mapping[str, Tensor], model: Any) -> None:
        self.chosen = beside(state, model)


def diversified(samples: Sequence[Sample], share: float, seed: int) -> list[Sample]:
    """The samples, with a share of those of one short answer asked as yes/no or multiple choice."""
    chance = random.Random(seed)
    short = [s for s in samples if _short(s)]
    others: dict[str, list[str]] = {}
    for sample in short:
        others.setdefault(sample.conversations[0].value, []).append(sample.conversations[1].value)
    everything = sorted({a for answers in others.values() for a in answers})
    picked = {id(s) for s in chance.sample(short, round(share * len(short)))}
    made = []
    for sample in samples:
        if id(sample) not in picked:
            made.append(sample)
            continue
        question, answer = (m.value for m in sample.conversations)
        wrong = sorted({a for a in others[question] if a != answer}) or [a for a in everything if a != answer]
        if len(wrong) >= len(LETTERS) - 1 and chance.random() < 0.5:
            made.append(_multiple_choice(sample, question, answer, wrong, chance))
        else:
            made.append(_yes_no(sample, question, answer, wrong, chance))
    return made


def _short(sample: Sample) -> bool:
    turns = sample.conversations
    return (
        len(turns) == 2
        and len(turns[1].value.split()) <= SHORT
        and turns[1].value.strip(" .").lower() not in ("yes", "no")
    )


def _asked(sample: Sample, question: str, answer: str) -> Sample:
    turns = [Message(from_="human", value=question), Message(from_="gpt", value=answer)]
    return sample.model_copy(update={"conversations": turns, "id": f"{sample.id}-styled"})


def _yes_no(
    sample: Sample, question: str, answer: str, wrong: Sequence[str], chance: random.Random
) -> Sample:
    true = not wrong or chance.random() < 0.5
    shown = answer if true else chance.choice(list(wrong))
    text = f"{question}\nIs the answer {shown}? Answer this question with Yes or No."
    return _asked(sample, text, "Yes" if true else "No")


def _multiple_choice(
    sample: Sample, question: str, answer: str, wrong: Sequence[str], chance: random.Random
) -> Sample:
    options = [answer, *chance.sample(list(wrong), len(LETTERS) - 1)]
    chance.shuffle(options)
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=True))
    text = f"{question}\n{listed}\nAnswer with the letter of the right option."
    return _asked(sample, text, LETTERS[options.index(answer)])
