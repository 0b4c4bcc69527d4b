"""Evaluation from Python: the scores of `kore eval`, with keywords for its options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kore.evaluation.report import suite_rows
from kore.evaluation.run_eval import Outcome, Plan, Request, carry_out
from kore.progress import Progress, silent


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        folder: answers, scores and summary.
        table: one row per model: method, k_a, k_r, avg, hars, ...
        summary: all of summary.json.
        warnings: what a person should know of the files.
    """

    folder: Path
    table: list[dict[str, Any]]
    summary: dict[str, Any]
    warnings: list[str] = field(default_factory=list)

    def suites(self) -> list[dict[str, Any]]:
        """One row per suite and model: score, figure, samples, missing, notes."""
        return suite_rows(self.summary) if self.summary else []


def evaluate(
    target: str | Path,
    suites: str | Path | Sequence[str | Path] = (),
    *,
    output: str | Path | None = None,
    data_dir: str | Path | None = None,
    image_root: str | Path | None = None,
    profile: str = "",
    settings: Mapping[str, Any] | None = None,
    split: str = "test",
    limit: int | None = None,
    ids: Iterable[str] = (),
    base: bool = True,
    rag: str | Path | None = None,
    judge_prompts: str | Path | None = None,
    html: bool = False,
    download: bool = False,
    restart: bool = False,
    progress: Progress = silent,
) -> Evaluation:
    """Score a run, an adapter or a model on suites, beside its untouched base; stored answers are kept.

    Args:
        target: a run (by folder or name), an adapter folder, or a model.
        suites: names of suites, or question files. Default: the run's own questions and the profile's suites.
        output: the results folder. Default: inside the run, else ``eval-NAME`` here.
        data_dir: where benchmark files are.
        profile: a shipped profile's name, or a TOML file. Default: what belongs to the target.
        settings: settings by dotted key, e.g. ``{"eval.judge": "openai:MODEL"}``.
        limit, ids: only so many samples of each suite; only these.
        base: evaluate the untouched base too.
        rag: items to retrieve from; adds a row.
        html: write report.html too.

    Raises:
        KoreError: of the kind that says what is wrong.
    """
    names = [suites] if isinstance(suites, (str, Path)) else suites
    request = Request(
        target=str(target),
        suites=[str(name) for name in names],
        data=Path(data_dir) if data_dir else None,
        out=Path(output) if output else None,
        profile=profile,
        settings=settings or {},
        split=split,
        image_root=Path(image_root) if image_root else None,
        limit=limit,
        ids=frozenset(ids),
        base=base,
        rag=Path(rag) if rag else None,
        judge_prompts=Path(judge_prompts) if judge_prompts else None,
        html=html,
        download=download,
        restart=restart,
    )
    found = evaluate_requested(request, progress=progress)
    return Evaluation(found.out, found.summary.get("table", []), found.summary, found.warnings)


def evaluate_requested(
    request: Request, planned: Plan | None = None, *, progress: Progress = silent
) -> Outcome:
    """Evaluate as requested."""
    return carry_out(request, progress, planned)
