"""What a study compares: methods, seeds, rates, and which of the paper's other tables."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kore.errors import ProfileError
from kore.models.load import EMBEDDED
from kore.profile import resolve

RAW, RAG, BASE = "lora-raw", "rag", "base"
METHODS = ["full", "lora-raw", "lora", "replay", "ewc", "lwf", "moelora", "olora", "sefe", "cia", "kore"]
WHOLE = "kore"  # the whole method: what ablations, ranks and constraints are compared with
UNAUGMENTED = "kore without augmentation"
UNCONSTRAINED = "kore without constraint"
THAWED = "kore with A trained"
# of the learning rates tried on the embedded base, where it is not LoRA's: a frozen A in the null space sees
# little of its input, an average lags behind what it averages
CENTRE = {"full": 3e-4, "moelora": 4e-3, "cia": 5e-3, WHOLE: 2e-2, UNAUGMENTED: 2e-2, THAWED: 4e-3}
PLAIN = 2e-3
FULL_SHARE = 0.1  # of the profile's rate, which is for adapters: what full fine-tuning takes
STEPS = (0.5, 1.0, 2.0)
Part = Literal["methods", "ablation", "ranks", "augmentation", "specific"]


class StudyPlan(BaseModel):
    """A study, as a TOML file says it; see each setting's line."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: str = "tiny"
    """Model and settings that all trials share."""
    models: list[str] = []
    """Further profiles, compared on base, lora, replay and kore (the paper's table 4)."""
    methods: list[str] = METHODS
    """Rows beside the base: training methods, lora-raw (raw items), rag."""
    seeds: int = Field(default=1, ge=1)
    """Seeds per method."""
    seeds_of: dict[str, int] = {}
    """Seeds of single methods, where they differ."""
    curve_seeds: int = Field(default=1, ge=1)
    """Seeds at which every rate is run, not only the chosen one: the curve's area then has a spread."""
    rates: dict[str, list[float]] = {}
    """Learning rates to choose from, per method; default three around a centre."""
    target: float = Field(default=0.5, gt=0, le=1)
    """Equal K.A at which rates are compared: this share of the best K.A that any method reached."""
    parts: list[Part] = ["methods"]
    """Which comparisons to make."""
    ranks: list[int] = []
    """KORE's ranks for the rank sweep."""
    strategies: list[str] = ["text-aware", "text-agnostic", "image-aware", "image-agnostic", "kore"]
    """Augmentations to compare, with plain LoRA."""
    max_steps: int | None = None
    """Steps of every trial; default: the profile's epochs."""
    limit: int | None = None
    """Questions per suite."""
    items: str | None = None
    """Your own items, with everything below; default: the demo's countries."""
    old: str | None = None
    """Retention samples."""
    suites: list[str] = ["demo"]
    """Retention suites, as kore eval names them."""
    settings: dict[str, Any] = {}
    """Settings beside the profile's, by dotted key, for every trial."""

    def rates_of(self, label: str, profile: str | None = None) -> list[float]:
        """Learning rates to choose from, of a row: around those known for the embedded base, else around the
        profile's own."""
        if label in self.rates:
            return list(self.rates[label])
        known = resolve(profile or self.profile, dict(self.settings)).profile
        own = known.train.lr * (FULL_SHARE if label == "full" else 1)
        centre = CENTRE.get(label, PLAIN) if known.model.id == EMBEDDED else own
        return [float(f"{centre * s:.2g}") for s in STEPS]

    def seeds_for(self, method: str) -> int:
        """How many seeds."""
        return self.seeds_of.get(method, self.seeds)


SMALL: dict[str, Any] = {
    "max_steps": 100,
    "limit": 40,
    "rates": {m: [CENTRE.get(m, PLAIN)] for m in METHODS},
    "settings": {
        "train.micro_batch": 16,
        "train.batch": 16,
        "train.save_steps": 1000,
        "train.probe_share": 0,
    },
}
"""The default setting without a plan: every method once, at one rate, in minutes."""


def read_plan(path: Path | None, changes: Mapping[str, Any]) -> StudyPlan:
    """A plan file (or the small default) with `changes` over it; None values change nothing.

    Raises:
        ProfileError: not TOML, an unknown key, a method that does not exist.
    """
    values: dict[str, Any] = dict(SMALL)
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ProfileError(f"not a readable plan: {error}", where=str(path)) from error
    values.update({k: v for k, v in changes.items() if v is not None})
    try:
        plan = StudyPlan.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(p) for p in first["loc"])
        raise ProfileError(f"{key}: {first['msg']}", where=str(path or "plan")) from error
    from kore.methods.table import METHODS as KNOWN

    for method in plan.methods:
        if method not in {*KNOWN, RAW, RAG, BASE}:
            raise ProfileError(
                f"no such method: {method}", where="methods", hint=f"{', '.join(KNOWN)}, {RAW}, {RAG}"
            )
    return plan
