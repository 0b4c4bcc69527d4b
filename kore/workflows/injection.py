"""Run an injection: augment, calibrate, train and evaluate, each resumed or skipped where it is finished."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.artifacts.events import EventWriter
from kore.artifacts.manifest import locked
from kore.artifacts.run import Run
from kore.errors import DataError
from kore.progress import Progress, silent
from kore.workflows import stages
from kore.workflows.example_answers import side_by_side
from kore.workflows.inject import Plan
from kore.workflows.neighbours import split_neighbours, with_neighbours, write_neighbours
from kore.workflows.protect import protect
from kore.workflows.result import Measured, Outcome, advise, headline, item_verdicts, legend
from kore.workflows.retention_samples import Old, old_samples
from kore.workflows.run_events import accounted, begun, state_of
from kore.workflows.sequential import find_run

if TYPE_CHECKING:
    from kore.augment.fit import FitReport
    from kore.evaluation.runner import Result
    from kore.evaluation.types import Suite

BEFORE = "before"  # the row of the model that the earlier run left


def run_inject(planned: Plan, progress: Progress = silent) -> Outcome:
    """All stages, each resumed or skipped where its output is there already.

    Raises:
        DataError: another process works in the folder. KoreError: what the stages raise.
    """
    with locked(planned.folder, hint=f"watch it with: kore dashboard {planned.folder}"):
        return _injected(planned, progress)


class _Laps:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.monotonic()

    def end(self, stage: str) -> None:
        now = time.monotonic()
        self.seconds[stage] = round(now - self._since, 1)
        self._since = now


@dataclass(frozen=True)
class _Trained:
    """What training leaves for evaluation."""

    run: Run
    tree: Path
    fit: FitReport | None
    old: Old | None
    near: Path | None


def _injected(planned: Plan, progress: Progress) -> Outcome:
    laps = _Laps()
    trained = _train(planned, laps, progress)
    return _evaluate(planned, trained, laps, progress)


def _train(planned: Plan, laps: _Laps, progress: Progress) -> _Trained:
    """Augment, calibrate and train."""
    from kore.models.token_budget import token_budget

    request, resolved, folder = planned.request, planned.request.resolved, planned.folder
    profile, neighbours = split_neighbours(resolved.profile)
    restart = request.restart
    tree = folder / "tree"
    near: Path | None = None
    # what cannot be drawn is told before hours of training
    old: Old | None = None
    if planned.draws_old:
        old = old_samples(
            profile,
            folder,
            needed=planned.needs_old,
            restart=restart,
            images=planned.images,
            progress=progress,
        )
    covariance = folder / "covariance" if planned.constrained else None
    contrasted = planned.constrained and profile.adapter.basis == "contrast"
    new_covariance = folder / "new-covariance" if contrasted else None
    run, samples = Run(folder / "run"), tree / "samples.jsonl"
    earlier = None if restart else state_of(run)
    early: AbstractContextManager[Progress] = nullcontext(progress)
    if earlier is None or earlier.status != "finished":
        inputs = {"data": samples, **({"covariance": covariance} if covariance else {})}
        early = begun(run, profile, request.command, inputs, progress, restart=restart)
    with accounted(run, earlier):
        with early as report:
            grown = stages.augment(
                planned.items,
                profile,
                tree,
                report,
                seed=profile.train.seed,
                restart=restart,
                sources={"items": request.items},
                budget=token_budget(profile.model, profile.train),
                places=planned.places,
            )
            check_questions(grown.values)
            laps.end("augment")
            if neighbours:
                made = write_neighbours(profile, planned.items, samples, neighbours, folder, report)
                profile, near = with_neighbours(profile, made), made.near
            resolved = replace(resolved, profile=profile)
            if covariance and request.after is not None:
                protect(resolved, request.after, folder, report, new=samples, restart=restart)
            elif covariance:
                stages.calibrate(resolved, covariance, report, new=samples, restart=restart)
            if new_covariance:
                stages.calibrate_new(
                    resolved, samples, new_covariance, report, restart=restart, adapter=request.after
                )
            if covariance:
                laps.end("calibrate")
        run = stages.train(
            resolved,
            samples,
            run.folder,
            progress,
            covariance=covariance,
            after=request.after,
            new_covariance=new_covariance,
            old=(old.given or old.asked) if old else None,
            command=request.command,
        )
    laps.end("train")
    return _Trained(run, tree, grown.fit, old, near)


def _evaluate(planned: Plan, trained: _Trained, laps: _Laps, progress: Progress) -> Outcome:
    """Score the base, the earlier run's model and the new one, and write the summary."""
    from kore.evaluation.agreement import load_agreement
    from kore.evaluation.report import summary, write_summary
    from kore.evaluation.scores import table
    from kore.workflows.injection_suites import earlier_suites, suite_options, suites_for

    request, resolved, run = planned.request, planned.request.resolved, trained.run
    asked = trained.old.asked if trained.old else None
    suites = suites_for(request.suites, suite_options(request.data_dir), trained.tree, asked)
    if trained.near is not None:
        suites.append(load_agreement(trained.near, name="near", near=True))
    label = resolved.profile.train.method
    before = earlier_suites(planned.earlier)
    models: dict[str, Run | None] = {stages.BASE: None, label: run}
    if request.after is not None:
        models = {stages.BASE: None, BEFORE: find_run(request.after), label: run}
    repeated = (run.evals / "inject" / "summary.json").is_file()
    with nullcontext() if repeated else EventWriter(run.folder) as events:
        results = {
            name: stages.evaluate(
                resolved, model, [*suites, *before], planned.folder / "eval", name, progress, events=events
            )
            for name, model in models.items()
        }
        if events:
            events.write("status", phase="finished", text="evaluated")
    laps.end("evaluate")
    now = {name: {s.name: result.scored[s.name] for s in suites} for name, result in results.items()}
    rows = table(now.pop(stages.BASE), now)
    rows[-1]["params"] = run.state().result.get("trainable")
    for row in rows:
        headlines = [results[row["method"]].scored[s.name].headline or 0.0 for s in before]
        row["k_a_earlier"] = sum(headlines) / len(headlines) if headlines else None
    write_summary({**summary(results), "table": rows}, run.evals / "inject")
    return _outcome(planned, trained, suites, results, rows, len(before), laps.seconds)


def _outcome(
    planned: Plan,
    trained: _Trained,
    suites: Sequence[Suite],
    results: Mapping[str, Result],
    rows: list[dict[str, Any]],
    batches: int,
    seconds: dict[str, float],
) -> Outcome:
    """What is told at the end: verdicts, headline, advice and next commands."""
    from kore.models.load import EMBEDDED
    from kore.workflows.injection_suites import asked_as_trained

    request, profile, run = planned.request, planned.request.resolved.profile, trained.run
    label, fit, value = profile.train.method, trained.fit, run.state().result
    answered = results[label].scored[suites[0].name].samples
    verdicts = item_verdicts(planned.items, answered, planned.places, fit.not_taught if fit else ())
    named = [one.verdict for one in verdicts]
    counts = {verdict: named.count(verdict) for verdict in ("learned", "partly", "not")}
    kept = rows[-1].get("k_r_share")
    small = profile.model.id == EMBEDDED and bool(planned.notes)
    measured = Measured(int(value["steps"]), float(value["loss"]), kept, small)
    return Outcome(
        folder=planned.folder,
        table=rows,
        legend=legend(suites, counts, batches, asked_as_trained(trained.tree)),
        retention=[s.name for s in suites[1:]],
        answers=side_by_side(suites, results, (stages.BASE, label), failures=1),
        items=counts,
        verdicts=verdicts,
        headline=headline(verdicts, kept),
        advice=advise(verdicts, profile, measured, request.command, planned.folder),
        left_out=[str(one) for one in fit.left_out] if fit else [],
        next=[
            f"kore chat {run.folder} --compare",
            f"kore dashboard {run.folder}",
            f"kore export {run.folder} --to peft -o {planned.folder / 'peft'}",
            f"kore inject next-items.jsonl --after {run.folder}",
        ],
        seconds=seconds,
    )


def check_questions(report: Mapping[str, Any]) -> None:
    """Refuse items on which nothing can be asked: nobody could say whether they are learned.

    Raises:
        DataError: no question came out of the augmentation.
    """
    if not report["evaluation"]["questions"]:
        raise DataError(
            "no question can be asked about these items, so their learning cannot be measured",
            hint='give them facts, e.g. "facts": {"capital": "Lima"}, or a teacher that writes questions',
        )
