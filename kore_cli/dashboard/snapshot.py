"""A run's condition as one JSON object, for scripts."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from kore_cli.dashboard.store import Mark
from kore_cli.dashboard.watcher import Snapshot


def snapshot_json(snapshot: Snapshot) -> dict[str, Any]:
    """The dashboard's content, with stable keys."""
    state, live, run = snapshot.state, snapshot.liveness, snapshot.run
    tally = state.tally()
    return {
        "v": 1,
        "run": str(snapshot.folder) if snapshot.folder else None,
        "state": live.name,
        "words": live.words,
        "next": live.command,
        "age_s": None if live.age is None else round(live.age, 1),
        "method": run.method if run else None,
        "step": state.step,
        "steps": state.steps,
        "epoch": state.epoch,
        "eta_s": state.eta_s,
        "metrics": dict(state.now),
        "phase": asdict(state.phase),
        "checkpoint": None if state.checkpoint is None else _mark(state.checkpoint),
        "best": None if state.best is None else {**_mark(state.best), "by": "probe score"},
        "probes": {
            "adapted": tally.adapted,
            "new": tally.new,
            "known_before": tally.known,
            "kept": tally.kept,
            "old": tally.old,
            "forgotten": tally.forgotten,
        },
        "results": [asdict(row) for row in (*snapshot.results, *state.evals.values())],
        "machine": snapshot.readings[-1][1].values() if snapshot.readings else None,
        "warnings": [{"step": w.step, "text": w.text} for w in state.warnings[-20:]],
        "events": state.events,
        "bad_lines": snapshot.bad_lines,
        "problem": snapshot.problem,
    }


def _mark(mark: Mark) -> dict[str, Any]:
    return {"step": mark.step, "path": mark.text, "t": mark.t}
