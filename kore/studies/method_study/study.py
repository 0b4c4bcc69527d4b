"""kore study: every method on the same data, tuned with the same budget, scored by the same questions.

Everything is a folder that is found again: a study goes on where it stopped, across days, and what there
is can be reported at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kore.artifacts.manifest import NAME, read_manifest
from kore.config.resolve import name_of
from kore.evaluation.frontier import area, retention_at
from kore.io.files import read_json, write_json
from kore.progress import Progress, silent
from kore.studies.method_study.arms import MODEL, Arm, arms, grow
from kore.studies.method_study.data import layout, prepare
from kore.studies.method_study.plan import BASE, RAG, StudyPlan
from kore.studies.method_study.trial_pool import run_all
from kore.studies.method_study.trials import NOT_YET, TEST, VALIDATION, Bench

REASONS = "reasons.json"


@dataclass
class Study:
    """One study in its folder.

    Attributes:
        rows: one per trial on the test split. tuning: the same on the validation split.
        chosen: row's label -> learning rate. tried: the same -> its rates, those that diverged, the end.
        curves: label -> seed -> its area and K.R at `level`. reached: label -> K.A and K.R at seed 0.
        beyond: rates tried further than a row's own, because the best was at their end.
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
    beyond: dict[str, list[float]] = field(default_factory=dict)
    tried: dict[str, dict[str, Any]] = field(default_factory=dict)
    curves: dict[str, dict[int, dict[str, float | None]]] = field(default_factory=dict)
    reached: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    level: float = 0.0
    missing: dict[str, str] = field(default_factory=dict)
    benches: dict[str, Bench] = field(default_factory=dict)
    _wanted: list[Arm] = field(default_factory=list)
    _specific: list[Arm] = field(default_factory=list)

    def prepare(self) -> None:
        """Make the data of every profile and list the rows."""
        for profile in (self.plan.profile, *self.plan.models):
            data = layout(self.plan, self.out / "data", profile)
            bench = Bench(self.plan, profile, data, self.out, self.progress, self.command)
            self.benches[profile] = bench
            if self.make:
                prepare(self.plan, profile, bench.data, self.progress)
        self._wanted = arms(self.plan, self.benches)
        self._specific = [arm for arm in self._wanted if arm.part == "specific"]

    def run(self) -> None:
        """Train what is missing, unless only a report is wanted, and collect what there is."""
        wanted = self._wanted
        try:
            if self.make:
                self.missing |= grow(self.plan, self.benches[self.plan.profile], wanted, self.progress)
            else:
                self._recall()
            wanted = [arm for arm in wanted if arm.label not in self.missing]
            if self.make:
                self._make(wanted)
        finally:
            if self.make:
                self._remember()
            self._collect(wanted)

    def _remember(self) -> None:
        """Keep why rows cannot be made, for a report without another try."""
        failed = {name_of(p): told(bench.failed) for p, bench in self.benches.items()}
        write_json(self.out / REASONS, {"rows": self.missing, "trials": failed})

    def _recall(self) -> None:
        if not (self.out / REASONS).is_file():
            return
        kept = read_json(self.out / REASONS)
        self.missing |= kept["rows"]
        for profile, bench in self.benches.items():
            bench.failed |= kept["trials"].get(name_of(profile), {})

    def covariances(self) -> dict[str, int]:
        """Of how many samples the covariance of each row of part specific is."""
        folders = {arm.label: arm.covariance for arm in self._specific if arm.covariance}
        made = {label: folder for label, folder in folders.items() if (folder / NAME).is_file()}
        return {label: len(read_manifest(folder).facts["samples"]) for label, folder in made.items()}

    def _make(self, wanted: Sequence[Arm]) -> None:
        for bench in self.benches.values():
            bench.base(TEST)
            bench.base(VALIDATION)
        if RAG in self.plan.methods:
            self.benches[self.plan.profile].rag(TEST)
        tuned = [arm for arm in wanted if len(arm.rates) > 1]
        trials = [
            (arm.bench, arm.spec(rate, 0), split)
            for arm in tuned
            for rate in arm.rates
            for split in (VALIDATION, TEST)
        ]
        run_all(trials, self.jobs, self.progress)
        self._tune(wanted, make=True)
        trials = [(arm.bench, arm.spec(rate, seed), TEST) for arm in wanted for rate, seed in self._runs(arm)]
        run_all(trials, self.jobs, self.progress)

    def rates(self, arm: Arm) -> list[float]:
        """What is tried, its own rates and those beyond, from low to high."""
        return sorted({*arm.rates, *self.beyond.get(arm.name, [])})

    def _tune(self, wanted: Sequence[Arm], *, make: bool) -> None:
        """Choose rates; while a chosen one is at an end of those tried, try one further and choose again."""
        self.beyond = {}
        self._choose(wanted)
        while further := self._further(wanted):
            if make:
                trials = [(a.bench, a.spec(r, 0), split) for a, r in further for split in (VALIDATION, TEST)]
                run_all(trials, self.jobs, self.progress)
            tried = {arm.name: rate for arm, rate in further if arm.bench.known(arm.spec(rate, 0))}
            if not tried:
                break
            for name, rate in tried.items():
                self.beyond.setdefault(name, []).append(rate)
            self._choose(wanted)
        waiting = {arm.name: rate for arm, rate in further}
        for arm in wanted:
            if len(arm.rates) > 1:
                self.tried[arm.name] = {**self._told(arm), "next": waiting.get(arm.name)}

    def _further(self, wanted: Sequence[Arm]) -> list[tuple[Arm, float]]:
        """The next rate of every arm whose best is at an end, once all its own rates were tried."""
        found = []
        for arm in wanted:
            left = self.plan.further - len(self.beyond.get(arm.name, []))
            if len(set(arm.rates)) < 2 or left < 1:
                continue
            if not all(arm.bench.known(arm.spec(rate, 0)) for rate in arm.rates):
                continue
            if rate := beyond(self.rates(arm), self._end(arm)):
                found.append((arm, rate))
        return found

    def _end(self, arm: Arm) -> str | None:
        """At which end of the rates tried the chosen one is; where all diverged, lower ones are missing."""
        rates = self.rates(arm)
        if all(arm.bench.diverged(arm.spec(rate, 0)) for rate in rates):
            return "lowest"
        return {rates[0]: "lowest", rates[-1]: "highest"}.get(self.chosen[arm.name])

    def _told(self, arm: Arm) -> dict[str, Any]:
        """An arm's rates for the report."""
        rates = self.rates(arm)
        ready = all(arm.bench.known(arm.spec(rate, 0)) for rate in rates)
        return {
            "rates": rates,
            "diverged": [rate for rate in rates if arm.bench.diverged(arm.spec(rate, 0))],
            "chosen": self.chosen[arm.name] if ready else None,
            "end": self._end(arm) if ready else None,
        }

    def _choose(self, wanted: Sequence[Arm]) -> None:
        """Read the validation rows and choose each arm's rate by them."""
        found: dict[str, list[dict[str, Any]]] = {}
        for arm in wanted:
            if len(arm.rates) > 1:
                rows = (
                    arm.bench.trial(arm.spec(rate, 0), VALIDATION, make=False) for rate in self.rates(arm)
                )
                found[arm.name] = [{**r, "label": arm.label} for r in rows if r]
        self.tuning = [r for rows in found.values() for r in rows]
        self.level = self.plan.target * max((r["k_a"] or 0 for r in self.tuning), default=0.0)
        self.chosen = {}
        for arm in wanted:
            if arm.rate_of is None:
                self.chosen[arm.name] = choose(found.get(arm.name, []), self.level, arm.default)
        for arm in wanted:
            if arm.rate_of is not None:
                self.chosen.setdefault(arm.name, self.chosen.get(arm.rate_of, arm.default))

    def _runs(self, arm: Arm) -> list[tuple[float, int]]:
        """Rates and seeds of an arm: the chosen rate at every seed, all of them at the curve's seeds."""
        whole = min(arm.seeds, self.plan.curve_seeds) if len(arm.rates) > 1 else 0
        every = [(rate, seed) for seed in range(whole) for rate in self.rates(arm)]
        once = [(self.chosen[arm.name], seed) for seed in range(arm.seeds)]
        return list(dict.fromkeys([*once, *every]))

    def _collect(self, wanted: Sequence[Arm]) -> None:
        """Read every row that is there, in the order of the tables."""
        main = self.benches[self.plan.profile]
        self._tune(wanted, make=False)
        for profile, bench in self.benches.items():
            part = "methods" if profile == self.plan.profile else f"{MODEL} {name_of(profile)}"
            if found := bench.base(TEST, make=False):
                self.rows.append({**bench.complete(found), "part": part, "label": BASE, "split": TEST})
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
                    own = {"part": arm.part, "label": arm.label, "split": TEST, "trains": arm.method}
                    self.rows.append({**arm.bench.complete(row), **own, "compared": arm.compared})
                points.setdefault(seed, []).append((row["k_a"] or 0.0, row["k_r"] or 0.0))
            if arm.part == "methods":
                self.reached[arm.label] = points.get(0, [])
                whole = min(arm.seeds, self.plan.curve_seeds) if len(arm.rates) > 1 else arm.seeds
                for seed in set(range(whole)) - unknown:
                    curve = [*base, *points.get(seed, [])]
                    figures = {"area": area(curve), "k_r_at": retention_at(curve, self.level)}
                    self.curves.setdefault(arm.label, {})[seed] = figures
        if RAG in self.plan.methods and (found := main.rag(TEST, make=False)):
            self.rows.append({**main.complete(found), "part": "methods", "label": RAG, "split": TEST})
        elif RAG in self.plan.methods:
            self.missing[RAG] = NOT_YET
        for profile, bench in self.benches.items():
            of = "" if profile == self.plan.profile else f"{name_of(profile)}: "
            self.missing |= {f"{of}{name}": why for name, why in bench.failed.items()}
        if "specific" in self.plan.parts:
            self.missing |= unmatched(main, self.rows)


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


def beyond(rates: Sequence[float], end: str | None) -> float | None:
    """One rate further than the rates at one end, by the step that they have there."""
    if end is None or len(rates) < 2:
        return None
    step = rates[1] / rates[0] if end == "lowest" else rates[-1] / rates[-2]
    return float(f"{rates[0] / step if end == 'lowest' else rates[-1] * step:.3g}")


def told(failed: Mapping[str, str]) -> dict[str, str]:
    """Reasons, without what was only not reached yet."""
    return {name: why for name, why in failed.items() if why != NOT_YET}


def unmatched(bench: Bench, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Old samples that no covariance of one suite is made of, and covariances whose suite is not asked."""
    found: dict[str, str] = {}
    if left := bench.data.without_suite():
        found["covariance of one suite"] = f"{left} old samples name no suite"
    base = [r["by_suite"] for r in rows if r["label"] == BASE]
    for name in bench.data.suites_of_old():
        if base and name not in base[0]:
            found[f"gain of kore for {name} on its own suite"] = f"no retention suite is called {name}"
    return found


def trainings(plan: StudyPlan, further: int = 0) -> int:
    """At most how many adapters a plan trains (less, where tables share rows).

    Args:
        further: rates that each tuned row goes beyond its own.
    """
    profiles = (plan.profile, *plan.models)
    benches = {p: Bench(plan, p, layout(plan, Path(), p), Path()) for p in profiles}
    specs = set()
    for arm in arms(plan, benches):
        seeds = range(min(arm.seeds, plan.curve_seeds))
        rates = sorted(arm.rates)
        for _ in range(further if len(rates) > 1 else 0):
            rates.append(beyond(rates, "highest") or 0.0)
        tried = {arm.spec(rate, s) for s in seeds for rate in rates}
        rest = range(len(seeds) if tried else 0, arm.seeds)
        specs |= tried | {arm.spec(arm.default, s) for s in rest}
    return len(specs)
