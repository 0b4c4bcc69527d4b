"""What a study compares: methods, seeds, rates, and which of the paper's other tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kore.config.resolve import resolve
from kore.io.files import hash_json
from kore.models.load import EMBEDDED

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
Part = Literal["methods", "ablation", "ranks", "augmentation", "specific"]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rates = Annotated[list[Rate], Field(min_length=1)]


class StudyPlan(BaseModel):
    """A study, as a TOML file says it; see each setting's line."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: str = "tiny"
    """Model and settings that all trials share."""
    models: list[str] = []
    """Further profiles, compared on base, lora, replay and kore (the paper's table 4)."""
    methods: list[str] = METHODS
    """Rows beside the base: training methods, lora-raw (raw items), rag."""
    seeds: Count = 1
    """Seeds per method."""
    seeds_of: dict[str, Count] = {}
    """Seeds of single methods, where they differ."""
    curve_seeds: Count = 1
    """Seeds at which every rate is run, not only the chosen one: the curve's area then has a spread."""
    rates: dict[str, Rates] = {}
    """Learning rates to choose from, per row; default: the grid around a centre."""
    grid: Rates = [0.5, 1.0, 2.0]
    """The steps of that grid, as multiples of the centre; a single one tunes nothing."""
    further: int = Field(default=2, ge=0)
    """How many rates further a row may go, one by one, while the chosen rate is at an end of those tried."""
    target: float = Field(default=0.5, gt=0, le=1)
    """Equal K.A at which rates are compared: this share of the best K.A that any method reached."""
    parts: list[Part] = ["methods"]
    """Which comparisons to make."""
    ranks: list[Count] = []
    """KORE's ranks for the rank sweep."""
    strategies: list[str] = ["text-aware", "text-agnostic", "image-aware", "image-agnostic", "kore"]
    """Augmentations to compare, with plain LoRA."""
    max_steps: Count | None = None
    """Steps of every trial; default: the profile's epochs."""
    limit: Count | None = None
    """Questions per suite."""
    items: str | None = None
    """Your own items, with everything below; default: the demo's countries."""
    old: str | None = None
    """Retention samples."""
    suites: list[str] = ["demo"]
    """Retention suites, as kore eval names them."""
    settings: dict[str, Any] = {}
    """Settings beside the profile's, by dotted key, for every trial."""
    notes: str = ""
    """Markdown that the report puts under its title, or the name of a file that holds it (``.md``)."""

    def rates_of(self, label: str, profile: str | None = None) -> list[float]:
        """Learning rates to choose from, of a row: around those known for the embedded base, else around the
        profile's own."""
        if label in self.rates:
            return list(self.rates[label])
        centre = self.centre_of(label, profile or self.profile)
        return [float(f"{centre * step:.2g}") for step in self.grid]

    def centre_of(self, label: str, profile: str) -> float:
        """The rate that a row takes where it is not tuned."""
        known = resolve(profile, dict(self.settings)).profile
        if known.model.id == EMBEDDED:
            return CENTRE.get(label, PLAIN)
        return known.train.lr * (FULL_SHARE if label == "full" else 1)

    def seeds_for(self, method: str) -> int:
        """How many seeds."""
        return self.seeds_of.get(method, self.seeds)

    def told(self) -> str:
        """The notes as text."""
        return Path(self.notes).read_text(encoding="utf-8") if self.notes_file else self.notes

    @property
    def notes_file(self) -> Path | None:
        """Where the notes are a file."""
        named = "\n" not in self.notes and self.notes.endswith(".md")
        return Path(self.notes) if named else None

    @property
    def key(self) -> str:
        """Of the folder where it is kept: what is only told, or is as it always was, makes no other one."""
        same = {n for n in ("grid", "further") if getattr(self, n) == type(self).model_fields[n].default}
        return hash_json(self.model_dump(mode="json", exclude={"notes", *same}))[:8]


SMALL: dict[str, Any] = {
    "max_steps": 100,
    "limit": 40,
    "grid": [1.0],
    "settings": {
        "train.micro_batch": 16,
        "train.batch": 16,
        "train.save_steps": 1000,
        "train.probe_share": 0,
    },
}
"""The default setting without a plan: every method once, at one rate, in minutes."""
