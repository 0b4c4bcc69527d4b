"""kore study: every method on the same data, tuned with the same budget, scored by the same questions.

Everything is a folder that is found again: a study goes on where it stopped, across days, and what there
is can be reported at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kore.evaluate.frontier import area, retention_at
from kore.files import hash_json, write_json
from kore.pipeline.side_by_side import run_all
from kore.pipeline.study_arms import MODEL, Arm, arms, grow
from kore.pipeline.study_data import layout, prepare
from kore.pipeline.study_plan import BASE, RAG, StudyPlan
from kore.pipeline.study_trials import NOT_YET, TEST, VALIDATION, Bench
from kore.progress import Progress, silent
from kore.run import home


@dataclass
class Study:
    """One study in its folder.

    Attributes:
        rows: one per trial on the test split. tuning: the same on the validation split.
        chosen: row's label -> learning rate. curves: label -> seed -> its area and K.R at `level`.
        level: the K.A at which rates are compared, and K.R is told.
        missing: what has no row -> why.
    """

    plan: StudyPlan
    out: Path
    progress: Progress = silent
    jobs: int = 1
    make: bool = True
    command: str = "kore study"
    rows: list[dict[str, Any]] = field(default_factory=list)
    tuning: list[dict[str, Any]] = field(default_factory=list)
    chosen: dict[str, float] = field(default_factory=dict)
    curves: dict[str, dict[int, dict[str, float | None]]] = field(default_factory=dict)
    level: float = 0.0
    missing: dict[str, str] = field(default_factory=dict)
    benches: dict[str, Bench] = field(default_factory=dict)

    def run(self) -> dict[str, Any]:
        """Make what is missing (unless only a report is wanted), and write the report.

        A study that is interrupted reports what it has.
        """
        from kore.pipeline.study_report import write_report

        profiles = [self.plan.profile, *self.plan.models]
        for profile in profiles:
            folder = self.out / "data" / ("" if profile == self.plan.profile else Path(profile).stem)
            bench = Bench(self.plan, profile, layout(self.plan, folder), self.out, self.progress)
            self.benches[profile] = bench
            if self.make:
                prepare(self.plan, profile, bench.data, self.progress)
        wanted = arms(self.plan, self.benches)
        try:
            if self.make:
                self.missing |= grow(self.plan, self.benches[self.plan.profile], wanted, self.progress)
                wanted = [arm for arm in wanted if arm.label not in self.missing]
                self._make(wanted)
        finally:
            self._collect(wanted)
            value = write_report(self)
        return value

    def _make(self, wanted: Sequence[Arm]) -> None:
        for bench in self.benches.values():
            bench.base(TEST)
            bench.base(VALIDATION)
        if RAG in self.plan.methods:
            self.benches[self.plan.profile].rag(TEST)
        tuned = [arm for arm in wanted if len(arm.rates) > 1]
        trials = [(arm.bench, arm.spec(rate, 0), split) for arm in tuned for rate in arm.rates
                  for split in (VALIDATION, TEST)]  # fmt: skip
        run_all(trials, self.jobs, self.progress)
        self._choose(wanted)
        trials = [(arm.bench, arm.spec(rate, seed), TEST) for arm in wanted for rate, seed in self._runs(arm)]
        run_all(trials, self.jobs, self.progress)

    def _choose(self, wanted: Sequence[Arm]) -> None:
        """Read the validation rows and choose each arm's rate by them."""
        found: dict[str, list[dict[str, Any]]] = {}
        for arm in wanted:
            if len(arm.rates) > 1:
                rows = (arm.bench.trial(arm.spec(rate, 0), VALIDATION, make=False) for rate in arm.rates)
                found[arm.name] = [{**r, "label": arm.label} for r in rows if r]
        self.tuning = [r for rows in found.values() for r in rows]
        self.level = self.plan.target * max((r["k_a"] or 0 for r in self.tuning), default=0.0)
        for arm in wanted:
            if arm.rate_of is None:
                self.chosen[arm.name] = choose(found.get(arm.name, []), self.level, arm.default)
        for arm in wanted:
            if arm.rate_of is not None:
                self.chosen.setdefault(arm.name, self.chosen.get(arm.rate_of, arm.default))

    def _runs(self, arm: Arm) -> list[tuple[float, int]]:
        """Rates and seeds of an arm: the chosen rate at every seed, all of them at the curve's seeds."""
        whole = min(arm.seeds, self.plan.curve_seeds) if len(arm.rates) > 1 else 0
        every = [(rate, seed) for seed in range(whole) for rate in arm.rates]
        once = [(self.chosen[arm.name], seed) for seed in range(arm.seeds)]
        return list(dict.fromkeys([*once, *every]))

    def _collect(self, wanted: Sequence[Arm]) -> None:
        """Read every row that is there, in the order of the tables."""
        main = self.benches[self.plan.profile]
        self._choose(wanted)
        for profile, bench in self.benches.items():
            part = "methods" if profile == self.plan.profile else f"{MODEL} {Path(profile).stem}"
            if found := bench.base(TEST, make=False):
                self.rows.append({**found, "part": part, "label": BASE, "split": TEST})
            else:
                self.missing[f"{BASE} of {profile}"] = NOT_YET
        base = [(r["k_a"] or 0.0, r["k_r"] or 0.0) for r in self.rows if r["part"] == "methods"]
        for arm in wanted:
            points: dict[int, list[tuple[float, float]]] = {}
            unknown: set[int] = set()
            for rate, seed in self._runs(arm):
                row = arm.bench.trial(arm.spec(rate, seed), TEST, make=False)
                if row is None:  # a rate that diverged reaches no point, one that was not run is unknown
                    if arm.bench.failed.get(str(arm.spec(rate, seed))) == NOT_YET:
                        unknown.add(seed)
                    continue
                if rate == self.chosen[arm.name]:
                    own = {"part": arm.part, "label": arm.label, "split": TEST}
                    self.rows.append({**row, **own, "compared": arm.compared})
                points.setdefault(seed, []).append((row["k_a"] or 0.0, row["k_r"] or 0.0))
            if arm.part == "methods":
                whole = min(arm.seeds, self.plan.curve_seeds) if len(arm.rates) > 1 else arm.seeds
                for seed in set(range(whole)) - unknown:
                    curve = [*base, *points.get(seed, [])]
                    figures = {"area": area(curve), "k_r_at": retention_at(curve, self.level)}
                    self.curves.setdefault(arm.label, {})[seed] = figures
        if RAG in self.plan.methods and (found := main.rag(TEST, make=False)):
            self.rows.append({**found, "part": "methods", "label": RAG, "split": TEST})
        elif RAG in self.plan.methods:
            self.missing[RAG] = NOT_YET
        for bench in self.benches.values():
            self.missing |= bench.failed


def choose(found: Sequence[Mapping[str, Any]], target: float, default: float) -> float:
    """The rate with the best K.R among those that reach a K.A of `target`; the highest K.A where none does.

    At equal K.A, because K.R alone, and Avg too, can be won by learning nothing.
    """
    if not found:
        return default
    reached = [r for r in found if (r["k_a"] or 0) >= target]
    if reached:
        return float(max(reached, key=lambda r: r["k_r"] or 0)["lr"])
    return float(max(found, key=lambda r: r["k_a"] or 0)["lr"])


def trainings(plan: StudyPlan) -> int:
    """At most how many adapters a plan trains (less, where tables share rows)."""
    out = Path()
    benches = {p: Bench(plan, p, layout(plan, out / Path(p).stem), out) for p in (plan.profile, *plan.models)}
    specs = set()
    for arm in arms(plan, benches):
        seeds = range(min(arm.seeds, plan.curve_seeds))
        tried = {arm.spec(rate, s) for s in seeds for rate in arm.rates}
        rest = range(len(seeds) if tried else 0, arm.seeds)
        specs |= tried | {arm.spec(arm.default, s) for s in rest}
    return len(specs)


def run_study(
    plan: StudyPlan,
    out: Path | None = None,
    *,
    progress: Progress = silent,
    jobs: int = 1,
    make: bool = True,
    command: str = "kore study",
) -> dict[str, Any]:
    """Run a study or go on with it.

    Args:
        jobs: trials side by side, each in a process of its own.
        make: False trains nothing and reports what there is.
        command: what makes the study, for its report.

    Returns:
        ``{table, tables, chosen, missing, files, ...}``: see `kore.pipeline.study_report`.
    """
    folder = out or home() / f"study-{hash_json(plan.model_dump(mode='json'))[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "plan.json", plan.model_dump(mode="json"))
    return Study(plan, folder.resolve(), progress, jobs, make, command).run()
