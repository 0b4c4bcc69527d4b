"""The list of runs: state, method, scores, age and folder of each."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kore.artifacts.run import Run, RunState, all_runs, title_of
from kore.errors import KoreError
from kore.io.files import read_json
from kore_cli.output import Output
from kore_cli.widgets.formatting import duration

UNREADABLE = "unreadable"


@dataclass(frozen=True)
class RunSummary:
    """One run, as lists show it.

    Attributes:
        state: the status in run.json, "dead" where its process ended without a word, or "unreadable".
        k_a, k_r: scores of the newest evaluation, None before there is one.
        age_s: seconds since the start.
    """

    name: str
    state: str
    method: str | None
    k_a: float | None
    k_r: float | None
    age_s: float | None
    folder: str


def list_runs(runs: Iterable[Run] | None = None) -> list[RunSummary]:
    """Summaries of some runs, by default of all under the runs folder, newest first."""
    return [summarise(run) for run in (all_runs() if runs is None else runs)]


def summarise(run: Run) -> RunSummary:
    """One run; what cannot be read is named unreadable."""
    try:
        state = run.state()
    except (KoreError, OSError):
        return RunSummary(title_of(run.folder), UNREADABLE, None, None, None, None, str(run.folder))
    row = newest_scores(run.folder, state)
    return RunSummary(
        name=title_of(run.folder),
        state="dead" if state.dead else state.status,
        method=state.method,
        k_a=_figure(row.get("k_a")),
        k_r=_figure(row.get("k_r")),
        age_s=round(max(0.0, time.time() - state.started), 1),
        folder=str(run.folder),
    )


def summary_files(run: Path) -> list[Path]:
    """The summaries of a run's evaluations, its own and those of a demo around it, newest last."""
    folders = (run / "eval", run.parent / "eval")
    paths = [p for f in folders for pattern in ("summary.json", "*/summary.json") for p in f.glob(pattern)]
    return sorted(paths, key=lambda p: p.stat().st_mtime)


def newest_scores(folder: Path, state: RunState) -> Mapping[str, Any]:
    """The run's row in the newest table that has one: by the folder's name, else by the method's."""
    for path in reversed(summary_files(folder)):
        try:
            table = read_json(path)["table"]
            rows = {str(row["method"]): row for row in table}
        except (KoreError, OSError, KeyError, TypeError):
            continue
        for label in (folder.name, state.method):
            if label in rows:
                return dict(rows[label])
    return {}


def _figure(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def print_runs(output: Output, runs: list[RunSummary]) -> None:
    """The runs as a table, or with --json and in pipes one object a line."""
    if not output.human:
        for run in runs:
            output.record({"v": 1, **asdict(run)})
        return
    rows = [
        {
            "run": run.name,
            "state": run.state,
            "method": run.method,
            "K.A": run.k_a,
            "K.R": run.k_r,
            "age": duration(run.age_s),
            "folder": run.folder,
        }
        for run in runs
    ]
    output.table(rows, list(rows[0]))
