"""kore study: every method on the same data, tuned with the same budget, scored by the same questions.

Everything is a folder that is found again: a study goes on where it stopped, across days.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.errors import KoreError
from kore.evaluate.frontier import area
from kore.evaluate.scores import row
from kore.files import hash_json, read_json, write_json
from kore.jsonl import read_log
from kore.pipeline import stages
from kore.pipeline.study_data import StudyData, prepare, suites
from kore.pipeline.study_plan import BASE, RAG, RAW, StudyPlan
from kore.pipeline.trial import Trial, run_trial
from kore.profile import resolve
from kore.progress import Progress, silent
from kore.run import Run, home

if TYPE_CHECKING:
    from kore.evaluate.runner import Result
    from kore.evaluate.task import Scored, Suite

VALIDATION, TEST = "validation", "test"


@dataclass
class Study:
    """One study in its folder.

    Attributes:
        rows: one per trial on the test split. tuning: the same on the validation split.
        chosen: method -> learning rate. areas: method -> area under its curve, in per cent.
        failed: trial -> why it has no row.
    """

    plan: StudyPlan
    out: Path
    progress: Progress = silent
    note: Callable[[str], None] = lambda text: None
    rows: list[dict[str, Any]] = field(default_factory=list)
    tuning: list[dict[str, Any]] = field(default_factory=list)
    chosen: dict[str, float] = field(default_factory=dict)
    areas: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    losses: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def run(self) -> dict[str, Any]:
        """Make what is missing, and write the report."""
        from kore.pipeline.study_report import write_report

        parts = set(self.plan.parts)
        data = prepare(self.plan, self.plan.profile, self.out / "data", self.progress)
        bench = Bench(self, self.plan.profile, data)
        self._methods(bench)
        if "ablation" in parts:
            self._ablation(bench)
        if "ranks" in parts:
            self._ranks(bench)
        if "augmentation" in parts:
            self._augmentation(bench)
        if "specific" in parts:
            self._specific(bench)
        for profile in self.plan.models:
            self._model(profile)
        return write_report(self, bench)

    def _methods(self, bench: Bench) -> None:
        self.rows.append(bench.base(TEST))
        base = bench.base(VALIDATION)
        tuned: dict[str, list[dict[str, Any]]] = {m: [] for m in self.plan.methods if m not in (BASE, RAG)}
        for method, found in tuned.items():
            rates = self.plan.rates_of(method)
            if len(rates) > 1:
                found += [r for rate in rates if (r := bench.trial(method, rate, 0, VALIDATION))]
        best = max((r["k_a"] or 0 for found in tuned.values() for r in found), default=0.0)
        for method, found in tuned.items():
            self.tuning += found
            self.chosen[method] = choose(found, self.plan.target * best, self.plan.rates_of(method)[0])
            points = [(r["k_a"], r["k_r"]) for r in [base, *found] if r["k_a"] is not None]
            if found:
                self.areas[method] = area(points)
        for method in self.plan.methods:
            if method == RAG:
                self.rows.append(bench.rag(TEST))
            elif method != BASE:
                for seed in range(self.plan.seeds_for(method)):
                    self._add(bench.trial(method, self.chosen[method], seed, TEST, part="methods"))

    def _add(self, found: dict[str, Any] | None) -> None:
        if found is not None:
            self.rows.append(found)

    def _ablation(self, bench: Bench) -> None:
        rate = self.chosen.get("kore", self.plan.rates_of("kore")[0])
        for label, flags, raw in (
            ("kore", {}, False),
            ("kore without augmentation", {}, True),
            ("kore without constraint", {"train.constraint": False}, False),
            ("kore with A trained", {"train.thaw_a": True}, False),
        ):
            data = bench.data.raw / "samples.jsonl" if raw else None
            self._add(
                bench.trial("kore", rate, 0, TEST, part="ablation", label=label, flags=flags, samples=data)
            )

    def _ranks(self, bench: Bench) -> None:
        rate = self.chosen.get("kore", self.plan.rates_of("kore")[0])
        for rank in self.plan.ranks:
            label = f"kore r={rank}"
            self._add(
                bench.trial("kore", rate, 0, TEST, part="ranks", label=label, flags={"adapter.rank": rank})
            )

    def _augmentation(self, bench: Bench) -> None:
        from kore.records import KnowledgeItem, read_records

        rate = self.chosen.get("lora", self.plan.rates_of("lora")[0])
        known = list(read_records(KnowledgeItem, bench.data.items))
        for strategy in self.plan.strategies:
            folder = self.out / "data" / f"augment-{strategy}"
            flags = {**self.plan.settings, "augment.strategy": strategy}
            if strategy == "kore":
                folder = bench.data.tree
            else:
                resolved = resolve(self.plan.profile, flags)
                stages.augment(known, resolved.profile, folder, self.progress, stage=f"augment {strategy}")
            self._add(
                bench.trial(
                    "lora", rate, 0, TEST, part="augmentation", label=f"lora, {strategy}",
                    samples=folder / "samples.jsonl",
                )
            )  # fmt: skip

    def _specific(self, bench: Bench) -> None:
        """One covariance per retention suite: from its old samples where they name their suite."""
        from kore.jsonl import write_jsonl
        from kore.records import Sample, read_records

        rate = self.chosen.get("kore", self.plan.rates_of("kore")[0])
        old = list(read_records(Sample, bench.data.old))
        names = sorted({str(s.extra["suite"]) for s in old if "suite" in s.extra})
        if not names:
            self.failed["specific constraints"] = "the old samples do not name their suite"
        for name in names:
            folder = self.out / "data" / f"old-{name}"
            path = folder / "samples.jsonl"
            if not path.exists():
                write_jsonl(path, [s.to_json() for s in old if s.extra.get("suite") == name])
            flags = {**self.plan.settings, "calibrate.samples": [str(path)]}
            resolved = resolve(self.plan.profile, flags)
            stages.calibrate(resolved, folder / "covariance", self.progress, stage=f"calibrate {name}")
            self._add(
                bench.trial(
                    "kore", rate, 0, TEST, part="specific", label=f"kore, {name}",
                    covariance=folder / "covariance",
                )
            )  # fmt: skip

    def _model(self, profile: str) -> None:
        data = prepare(self.plan, profile, self.out / "data" / Path(profile).stem, self.progress)
        bench = Bench(self, profile, data)
        part = f"model {Path(profile).stem}"
        self.rows.append({**bench.base(TEST), "part": part})
        for method in ("lora", "kore"):
            rate = self.chosen.get(method, self.plan.rates_of(method)[0])
            self._add(bench.trial(method, rate, 0, TEST, part=part))


@dataclass
class Bench:
    """Trials of one model on one set of data."""

    study: Study
    profile: str
    data: StudyData
    _base: dict[str, Mapping[str, Scored]] = field(default_factory=dict)
    _suites: dict[str, list[Suite]] = field(default_factory=dict)

    def suites(self, split: str) -> list[Suite]:
        """The questions of a split."""
        if split not in self._suites:
            self._suites[split] = suites(self.study.plan, self.data, split)
        return self._suites[split]

    def evals(self, split: str) -> Path:
        """Where a split's answers lie."""
        return self.study.out / "eval" / Path(self.profile).stem / split

    def scored(self, split: str) -> Mapping[str, Scored]:
        """The untouched base's results."""
        if split not in self._base:
            resolved = resolve(self.profile, dict(self.study.plan.settings))
            found = stages.evaluate(
                resolved, None, self.suites(split), self.evals(split), BASE, self.study.progress
            )
            self._base[split] = found.scored
        return self._base[split]

    def base(self, split: str) -> dict[str, Any]:
        """The base's row."""
        return {**row(BASE, self.scored(split), None), **_types(self.suites(split), self.scored(split)),
                "part": "methods", "label": BASE, "split": split, "answers": BASE}  # fmt: skip

    def rag(self, split: str) -> dict[str, Any]:
        """Retrieval's row."""
        from kore.evaluate.runner import evaluate
        from kore.methods.rag import RagEngine
        from kore.models.load import load
        from kore.records import KnowledgeItem, read_records

        profile = resolve(self.profile, dict(self.study.plan.settings)).profile
        items = list(read_records(KnowledgeItem, self.data.items))
        engine = RagEngine(
            load(profile.model), items, batch=profile.eval.batch, max_new_tokens=profile.eval.max_new_tokens
        )
        found = evaluate(engine, self.suites(split), self.evals(split), label=RAG, adapter=False)
        return self._row(RAG, found, split, 0, part="methods", label=RAG, rate=None)

    def trial(
        self,
        method: str,
        rate: float,
        seed: int,
        split: str,
        *,
        part: str = "methods",
        label: str | None = None,
        flags: Mapping[str, Any] | None = None,
        samples: Path | None = None,
        covariance: Path | None = None,
    ) -> dict[str, Any] | None:
        """Train and score one setting, or read what it came to; None when it failed, with the reason kept."""
        study, plan = self.study, self.study.plan
        label = label or method
        settings = {**plan.settings, "train.lr": rate, "train.seed": seed, **(flags or {})}
        if plan.max_steps:
            settings["train.max_steps"] = plan.max_steps
        trial = Trial(
            label=f"{label} lr={rate:g} seed={seed}",
            method="lora" if method == RAW else method,
            data=samples or self.data.samples(method),
            covariance=(covariance or self.data.covariance) if method == "kore" else None,
            old=self.data.old,
            flags=settings,
        )
        name = _slug(f"{Path(self.profile).stem}-{label}-lr{rate:g}-s{seed}")
        kept = study.out / "rows" / split / f"{name}.json"
        asked = hash_json([settings, str(trial.data), str(trial.covariance), plan.limit, plan.suites])
        run = Run(study.out / "runs" / name)
        study.losses.setdefault(label, [])
        if kept.is_file() and (found := read_json(kept)).get("asked") == asked:
            study.losses[label] = study.losses[label] or _losses(run)
            return {**found, "part": part, "label": label}
        try:
            run, result = run_trial(
                trial, self.profile, run.folder, self.suites(split), self.evals(split), study.progress
            )
        except KoreError as error:
            if error.exit_code == 130:
                raise
            study.failed[trial.label] = str(error)
            study.note(f"{trial.label}: {error}")
            return None
        study.losses[label] = study.losses[label] or _losses(run)
        found = self._row(method, result, split, seed, part=part, label=label, rate=rate)
        found["params"] = run.state().result.get("trainable")
        found["seconds"] = run.state().result.get("seconds")
        write_json(kept, {**found, "asked": asked})
        return found

    def verdicts(self, found: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
        """A row's kept verdicts by suite and question."""
        folder = self.evals(TEST) / "samples" / str(found["answers"])
        return {(path.stem, v["id"]): v for path in sorted(folder.glob("*.jsonl")) for v in read_log(path)}

    def _row(
        self, method: str, result: Result, split: str, seed: int, *, part: str, label: str, rate: float | None
    ) -> dict[str, Any]:
        return {
            **row(label, result.scored, self.scored(split)),
            **_types(self.suites(split), result.scored),
            "base_of": method,
            "part": part,
            "label": label,
            "split": split,
            "seed": seed,
            "lr": rate,
            "answers": result.label,
        }


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


def _types(suites_: Sequence[Suite], scored: Mapping[str, Scored]) -> dict[str, Any]:
    """Mean adaptation score by the question's fine type (the paper's table 9)."""
    found: dict[str, list[float]] = {}
    for suite in suites_:
        if suite.role != "adaptation" or suite.name not in scored:
            continue
        kinds = {q.question_id: q.type for q in getattr(suite, "questions", ())}
        for verdict in scored[suite.name].samples:
            if verdict.score is not None:
                found.setdefault(kinds.get(verdict.id, "other"), []).append(100 * verdict.score)
    return {"by_type": {kind: sum(v) / len(v) for kind, v in sorted(found.items())}}


def _losses(run: Run) -> list[tuple[int, float]]:
    from kore.events import EventTail

    steps = {
        e["step"]: e["loss"]
        for e in EventTail(run.folder).read()
        if e["kind"] == "step" and e.get("loss") is not None
    }
    return sorted(steps.items())


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-." else "-" for c in text)


def run_study(
    plan: StudyPlan,
    out: Path | None = None,
    *,
    progress: Progress = silent,
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Run a study or go on with it.

    Returns:
        ``{table, areas, chosen, failed, files}``: see `kore.pipeline.study_report`.
    """
    folder = out or home() / f"study-{hash_json(plan.model_dump(mode='json'))[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "plan.json", plan.model_dump(mode="json"))
    return Study(plan, folder, progress, note).run()
