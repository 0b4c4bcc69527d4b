"""Options for reading suites: folder, prompt form, split, limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kore.artifacts.run import data_root
from kore.data.benchmark_prompts import DEFAULT_FORM, PromptForm
from kore.evaluation.types import Role

if TYPE_CHECKING:
    from kore.evaluation.judge import Judge
    from kore.evaluation.option_matching import Compat


@dataclass(frozen=True)
class SuiteOptions:
    """Options for reading suites.

    Attributes:
        data: folder of benchmark files; by default $KORE_DATA.
        form: protocol and style of benchmark prompts.
        split: of the demo's suites and of question files that have splits.
        limit: at most this many samples of each suite.
        ids: only these samples.
        max_new_tokens: longest answer in tokens; None: the suite decides.
        role: role of a question file whose name does not give one.
    """

    data: Path = field(default_factory=data_root)
    form: PromptForm = DEFAULT_FORM
    compat: Compat = "vlmeval-688e9da"
    split: str = "test"
    judge: Judge | None = None
    limit: int | None = None
    ids: frozenset[str] = frozenset()
    image_root: Path | None = None
    max_new_tokens: int | None = None
    role: Role = "adaptation"
