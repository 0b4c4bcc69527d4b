"""A training whose old probes fall at the second asking, to be launched on several processes.

``zero_alarm.py BASE DATA OUT``: goes back to the checkpoint of step 2, under ZeRO-3.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from kore.artifacts.events import EventWriter
from kore.artifacts.run import Run
from kore.config.resolve import ModelSection, TrainSection
from kore.distributed import join
from kore.methods.registry import make_method
from kore.models.load import load
from kore.training.dataset import read_training
from kore.training.probes import Probe, Probing
from kore.training.run import train


class Falls:
    """Says right until it was asked often enough: base, step 2 and its events, but not step 4.

    The second process never says wrong: what the first saw is what both go by.
    """

    calls = 0

    def __call__(self, answer: str, known: str) -> bool:
        self.calls += 1
        return self.calls <= 8 or os.environ["RANK"] != "0"


def main(base: str, data: str, out: str) -> None:
    """Train."""
    small = {"stage": 3, "stage3_param_persistence_threshold": 0}  # else so small a model is not divided
    section = TrainSection(
        method="lora",
        lr=1e-2,
        batch=4,
        max_steps=6,
        save_steps=2,
        keep=0.9,
        on_alarm="best",
        zero=3,
        deepspeed={"zero_optimization": small},
    )
    probing = Probing([Probe("o", "old", "Is it?", "Yes")], Falls(), steps=2, max_new_tokens=2)
    with join(deepspeed=True) as here:
        backbone = load(ModelSection(id=base))
        events = EventWriter(Path(out)) if here.first else None
        found = train(
            backbone,
            read_training(data),
            section,
            make_method("lora"),
            Run(Path(out)),
            events,
            probing,
            rank=4,
        )
        assert found.returned == 2, found


if __name__ == "__main__":
    main(*sys.argv[1:])
