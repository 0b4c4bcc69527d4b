"""What an injection ends with: the table, some answers side by side, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """The end of a demo or an injection.

    Attributes:
        folder: where everything lies.
        table: one row per method, the untouched base first: method, params, cem, f1, k_a, k_r,
            k_r_near, avg, hars, per_suite.
        legend: what the columns mean, with the count of suites behind K.R.
        retention: names of the old suites, each of which has its score in a row's per_suite.
        answers: questions with each method's answer: about, question (its first line), prompt (all of it),
            right, answers.
        items: verdict per item: learned, partly, not.
        next: commands to try.
        seconds: how long each stage took.
    """

    folder: Path
    table: list[dict[str, Any]]
    legend: str
    retention: list[str] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    items: dict[str, int] = field(default_factory=dict)
    next: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A plain object with stable keys."""
        return {"v": 1, **self.__dict__, "folder": str(self.folder)}
