"""A training under ZeRO-3 with probes, to be launched on several processes.

``zero_probes.py BASE DTYPE DATA OUT``: with DeepSpeed's configuration as KORE makes it, projector trained and off,
gradient checkpointing on and off, each in a folder of its own under OUT.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from itertools import product
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

CASES = {
    f"projector-{projector}-checkpointing-{checkpointing}": {
        "projector": projector,
        "gradient_checkpointing": checkpointing,
    }
    for projector, checkpointing in product(("off", 1e-3), (False, True))
}
"""Folder name -> settings."""


def one(base: str, dtype: str, data: str, out: Path, zero: int, case: str, *, first: bool = True) -> None:
    """Train one case for two steps, probes at each."""
    section = TrainSection.model_validate(
        {"method": "lora", "lr": 1e-2, "batch": 4, "max_steps": 2, "zero": zero, **CASES[case]}
    )
    image = str(Path(data).parent / "0.png")
    probes = [Probe("n", "new", "Which?", "Lima", image), Probe("o", "old", "Is it?", "Yes", image)]
    with EventWriter(out / case) if first else nullcontext() as events:
        train(
            load(ModelSection.model_validate({"id": base, "dtype": dtype})),
            read_training(data),
            section,
            make_method("lora"),
            Run(out / case),
            events,
            Probing(probes, lambda answer, known: True, steps=1, max_new_tokens=4),
            rank=4,
        )


def main(base: str, dtype: str, data: str, out: str) -> None:
    """Train every case."""
    with join(deepspeed=True) as here:
        for case in CASES:
            one(base, dtype, data, Path(out), 3, case, first=here.first)


if __name__ == "__main__":
    main(*sys.argv[1:])
