"""Replay (paper's Replay row; data mixing as in continual learning): LoRA on new samples plus old ones.

Old samples, 10 % of the number of new ones by default (`share`), are drawn without repetition from the
retention samples by the run's seed and mixed in; everything else is LoRA.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from pydantic import Field

from kore.data.records import Sample
from kore.methods.base import MethodSettings, Traits
from kore.methods.lora import Lora


class ReplaySettings(MethodSettings):
    share: float = Field(default=0.1, ge=0, le=10)
    """Old samples as a share of the new ones."""


class Replay(Lora):
    """Train on old samples too."""

    name = "replay"
    traits = Traits(needs_old=True)
    Settings = ReplaySettings
    lack: str | None = None

    def mix(self, samples: Sequence[Sample], old: Sequence[Sample], seed: int) -> list[Sample]:
        assert isinstance(self.settings, ReplaySettings)
        asked = round(self.settings.share * len(samples))
        wanted = min(len(old), asked)
        self.lack = f"{asked} old samples were asked for, there are {wanted}" if wanted < asked else None
        chosen = random.Random(seed).sample(list(old), wanted)
        return [*samples, *chosen]

    def note(self) -> str | None:
        return self.lack
