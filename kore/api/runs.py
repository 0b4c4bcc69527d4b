"""A run's folder as one typed result: state, settings, scores, training curve."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kore.artifacts.events import EventTail
from kore.artifacts.run import Run, run_named
from kore.errors import MissingArtefact
from kore.io.files import read_json


@dataclass(frozen=True)
class RunResult:
    """One trained run.

    Attributes:
        folder: the run folder.
        status: starting, running, finished, failed, interrupted; dead if its process is gone.
        adapter: the PEFT folder; None while the run is not finished.
        steps, loss, trainable: optimiser steps, mean loss of the last 20, parameters trained.
        settings: every setting under its dotted key.
        facts: everything else that the run reported at its end.
    """

    folder: Path
    status: str
    method: str
    adapter: Path | None
    steps: int | None = None
    loss: float | None = None
    trainable: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def scores(self) -> list[dict[str, Any]]:
        """One row per evaluation and model, flat: evaluation, method, k_a, k_r, and a column per suite."""
        rows = []
        for path in sorted(Run(self.folder).evals.glob("**/summary.json")):
            for row in read_json(path).get("table", ()):
                flat = {k: v for k, v in row.items() if k != "per_suite"}
                rows.append({"evaluation": path.parent.name, **flat, **(row.get("per_suite") or {})})
        return rows

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The run's events in order; with `kind`, only those, such as step, probe or checkpoint."""
        return [e for e in EventTail(self.folder).read() if kind is None or e["kind"] == kind]


def load_run(path: str | Path) -> RunResult:
    """A run by its folder, by the folder of `kore inject` around it, or by its name under the runs folder.

    Raises:
        MissingArtefact: no run there. DataError: not a run of this version.
    """
    run = run_named(str(path))
    if run is None:
        raise MissingArtefact(f"no run here: {path}", hint="make one with kore.train or kore.inject")
    state = run.state()
    settings = {
        f"{section}.{key}": value
        for section, values in state.profile.items()
        if isinstance(values, dict)
        for key, value in values.items()
    }
    facts = dict(state.result)
    return RunResult(
        run.folder,
        "dead" if state.dead else state.status,
        state.method,
        run.adapter if state.status == "finished" else None,
        facts.get("steps"),
        facts.get("loss"),
        facts.get("trainable"),
        settings,
        facts,
    )
