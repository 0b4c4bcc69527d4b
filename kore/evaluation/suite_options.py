"""How suites are read: folder, protocol, split, limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kore.artifacts.run import data_root
from kore.evaluation.types import Role

if TYPE_CHECKING:
    from kore.evaluation.judge import Judge
    from kore.evaluation.option_matching import Compat
    from kore.evaluation.prompt_formats import Style


@dataclass(frozen=True)
class SuiteOptions:
    """How suites are read.

    Attributes:
        data: folder of benchmark files; by default $KORE_DATA.
        style: form of multiple-choice prompts (LLaVA has its own).
        split: of the demo's suites and of your own.
        limit: at most this many samples of each suite.
        ids: only these samples.
        max_new_tokens: longest answer in tokens; None: the suite decides.
        role: role of a question file that names none.
    """

    data: Path = field(default_factory=data_root)
    protocol: str = "vlmeval"
    compat: Compat = "vlmeval-688e9da"
    style: Style = "default"
    split: str = "test"
    judge: Judge | None = None
    limit: int | None = None
    ids: frozenset[str] = frozenset()
    image_root: Path | None = None
    max_new_tokens: int | None = None
    role: Role = "adaptation"
