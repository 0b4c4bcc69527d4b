"""The rows of a study's tables: what each trains, on what, at which rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kore.config.resolve import name_of, resolve
from kore.data.read import read_records
from kore.data.records import KnowledgeItem
from kore.errors import UsageError
from kore.io.jsonl import write_jsonl
from kore.progress import Progress
from kore.studies.method_study.data import flags_of
from kore.studies.method_study.plan import (
    BASE,
    RAG,
    RAW,
    THAWED,
    UNAUGMENTED,
    UNCONSTRAINED,
    WHOLE,
    StudyPlan,
)
from kore.studies.method_study.trials import Bench, Spec
from kore.workflows import stages

MODEL = "model"  # how the table of another model is called, before its profile's name


@dataclass(frozen=True)
class Arm:
    """One row of one table.

    Attributes:
        part: the table. method: as in ``kore train --method``.
        rates: to choose from; one is taken as it is.
        rate_of: the row whose chosen rate this one takes, instead of rates of its own.
        compared: the suite that this row's constraint is made for.
    """

    label: str
    part: str
    method: str
    bench: Bench
    samples: Path
    covariance: Path | None = None
    flags: tuple[tuple[str, Any], ...] = ()
    rates: tuple[float, ...] = ()
    rate_of: str | None = None
    seeds: int = 1
    default: float = 0.0
    compared: str | None = None

    @property
    def name(self) -> str:
        """Under which its rate is known: another model's rows have rates of their own."""
        return f"{self.label}, {self.part}" if self.part.startswith(MODEL) else self.label

    def spec(self, rate: float, seed: int) -> Spec:
        """Its trial at one rate and seed."""
        return Spec(self.method, rate, seed, self.samples, self.covariance, self.flags)


def arms(plan: StudyPlan, benches: Mapping[str, Bench]) -> list[Arm]:
    """Every row that is trained, table by table; a row that two tables share is trained once."""
    parts = {
        "methods": _methods,
        "ablation": _ablation,
        "ranks": _ranks,
        "augmentation": _augmentation,
        "specific": _specific,
    }
    main = benches[plan.profile]
    found = [arm for part, make in parts.items() if part in plan.parts for arm in make(plan, main)]
    for profile in plan.models:
        for method in ("lora", "replay", "kore"):
            part = f"{MODEL} {name_of(profile)}"
            rates = (plan.centre_of(method, profile),)
            found.append(_arm(plan, benches[profile], method, part, rates=rates))
    return found


def _arm(plan: StudyPlan, bench: Bench, label: str, part: str, **more: Any) -> Arm:
    method = more.pop("method", "lora" if label == RAW else label)
    more.setdefault("samples", bench.data.samples(label))
    more.setdefault("covariance", bench.data.covariance if method == "kore" else None)
    rates = more.pop("rates", None)
    if rates is None:
        rates = () if "rate_of" in more else tuple(plan.rates_of(label, bench.profile))
    own = rates or tuple(plan.rates_of(more["rate_of"], bench.profile))
    return Arm(label, part, method, bench, rates=rates, default=own[len(own) // 2], **more)


def _methods(plan: StudyPlan, bench: Bench) -> list[Arm]:
    trained = [m for m in plan.methods if m not in (BASE, RAG)]
    return [_arm(plan, bench, m, "methods", seeds=plan.seeds_for(m)) for m in trained]


def _ablation(plan: StudyPlan, bench: Bench) -> list[Arm]:
    """Each part of the method taken away, at a rate of its own: one that suits the whole may not suit it.

    Without the null space what is left is LoRA on the same samples at the same trainable count.
    """
    raw, thawed = bench.data.samples(RAW), (("train.thaw_a", True),)
    return [
        _arm(plan, bench, WHOLE, "ablation"),
        _arm(plan, bench, UNAUGMENTED, "ablation", method="kore", samples=raw),
        _arm(plan, bench, UNCONSTRAINED, "ablation", method="lora"),
        _arm(plan, bench, THAWED, "ablation", method="kore", flags=thawed),
    ]


def _ranks(plan: StudyPlan, bench: Bench) -> list[Arm]:
    return [
        _arm(
            plan,
            bench,
            f"kore r={rank}",
            "ranks",
            method="kore",
            flags=(("adapter.rank", rank),),
            rate_of=WHOLE,
        )
        for rank in plan.ranks
    ]


def _augmentation(plan: StudyPlan, bench: Bench) -> list[Arm]:
    return [
        _arm(
            plan,
            bench,
            f"lora, {strategy}",
            "augmentation",
            method="lora",
            samples=_grown(bench, strategy) / "samples.jsonl",
        )
        for strategy in plan.strategies
    ]


def _grown(bench: Bench, strategy: str) -> Path:
    return bench.data.tree if strategy == "kore" else bench.data.tree.parent / f"augment-{strategy}"


def _specific(plan: StudyPlan, bench: Bench) -> list[Arm]:
    """A covariance of each retention suite's own old samples, beside that of all of them."""
    general = _arm(plan, bench, WHOLE, "specific", rate_of=WHOLE)
    return [general] + [
        _arm(
            plan,
            bench,
            f"kore for {name}",
            "specific",
            method="kore",
            rate_of=WHOLE,
            covariance=_own(bench, name) / "covariance",
            compared=name,
        )
        for name in bench.data.suites_of_old()
    ]


def _own(bench: Bench, suite: str) -> Path:
    return bench.data.tree.parent / f"old-{suite}"


def grow(plan: StudyPlan, bench: Bench, wanted: Sequence[Arm], progress: Progress) -> dict[str, str]:
    """Make the data that single tables need: other augmentations, covariances of one suite.

    Returns:
        Rows that cannot be made here, with the reason: a strategy may need a teacher that is a model.
    """
    parts, failed = {arm.part for arm in wanted}, {}
    if "augmentation" in parts:
        known = list(read_records(KnowledgeItem, bench.data.items))
        for arm in wanted:
            strategy = arm.samples.parent.name.removeprefix("augment-")
            if arm.part != "augmentation" or arm.samples == bench.data.samples(WHOLE):
                continue
            profile = resolve(
                plan.profile, {**flags_of(plan, bench.data), "augment.strategy": strategy}
            ).profile
            try:
                stages.augment(known, profile, arm.samples.parent, progress, stage=f"augment {strategy}")
            except UsageError as error:
                failed[arm.label] = "; ".join(error.lines())
    if "specific" in parts:
        for name, samples in bench.data.suites_of_old().items():
            folder = _own(bench, name)
            path = folder / "samples.jsonl"
            if not path.exists():
                write_jsonl(path, [s.to_json() for s in samples])
            resolved = resolve(plan.profile, {**plan.settings, "calibrate.samples": [str(path)]})
            stages.calibrate(resolved, folder / "covariance", progress, stage=f"calibrate {name}")
    return failed
