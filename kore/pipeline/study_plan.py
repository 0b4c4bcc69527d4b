"""What a study compares: methods, seeds, rates, and which of the paper's other tables."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kore.errors import ProfileError

RAW, RAG, BASE = "lora-raw", "rag", "base"
METHODS = ["full", "lora-raw", "lora", "replay", "ewc", "lwf", "moelora", "olora", "sefe", "cia", "kore"]
CENTRE = {"full": 3e-4, "kore": 2e-2}  # of the learning rates tried on the embedded base; others:
PLAIN = 3e-3
STEPS = (1 / 3, 1.0, 3.0)
Part = Literal["methods", "ablation", "ranks", "augmentation", "specific"]


class StudyPlan(BaseModel):
    """A study, as a TOML file says it; see each setting's line."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: str = "tiny"
    """Model and settings that all trials share."""
    models: list[str] = []
    """Further profiles, compared on base, lora and kore (the paper's table 4)."""
    methods: list[str] = METHODS
    """Rows beside the base: training methods, lora-raw (raw items), rag."""
    seeds: int = Field(default=1, ge=1)
    """Seeds per method."""
    seeds_of: dict[str, int] = {}
    """Seeds of single methods, where they differ."""
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

    def rates_of(self, method: str) -> list[float]:
        """Learning rates to choose from."""
        if method in self.rates:
            return list(self.rates[method])
        return [float(f"{CENTRE.get(method, PLAIN) * s:.2g}") for s in STEPS]

    def trainings(self) -> int:
        """How many adapters the plan trains (trials that two parts share are counted twice)."""
        rows = [m for m in self.methods if m not in (RAG, BASE)]
        tuned = sum(len(r) for m in rows if len(r := self.rates_of(m)) > 1)
        again = sum(self.seeds_for(m) - (len(self.rates_of(m)) > 1) for m in rows)
        parts = {"ablation": 4, "ranks": len(self.ranks), "augmentation": len(self.strategies)}
        return tuned + again + sum(parts.get(p, 0) for p in self.parts) + 2 * len(self.models)

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
