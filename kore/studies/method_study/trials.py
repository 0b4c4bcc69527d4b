"""A study's trials: each trained and scored once, and kept in a file.

A trial is known by what decides its result, so that rows of different tables share it.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.artifacts.manifest import NAME, read_manifest
from kore.artifacts.run import Run
from kore.config.resolve import Profile, name_of, resolve, shipped_names
from kore.errors import Interrupted, KoreError
from kore.evaluation.scores import row
from kore.io.files import hash_file, hash_json, read_json, write_json
from kore.io.jsonl import read_log
from kore.progress import Progress, silent
from kore.studies.method_study.data import StudyData, suites
from kore.studies.method_study.plan import BASE, RAG, StudyPlan
from kore.workflows import stages
from kore.workflows.trial import Trial, run_trial

if TYPE_CHECKING:
    from kore.evaluation.runner import Result
    from kore.evaluation.types import Scored, Suite

VALIDATION, TEST = "validation", "test"
NOT_YET = "not made yet"


@dataclass(frozen=True)
class Spec:
    """One training: a method at one rate and seed, on some samples.

    Attributes:
        flags: settings beside the plan's. covariance: for methods that take one.
    """

    method: str
    rate: float
    seed: int
    samples: Path
    covariance: Path | None = None
    flags: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        more = "".join(f" {key.rpartition('.')[2]}={value}" for key, value in self.flags)
        kept = self.covariance.parent.name if self.covariance else ""
        more += f" for {kept}" if kept.startswith("old-") else ""
        return f"{self.method} lr={self.rate:g} seed={self.seed}{more} on {self.samples.parent.name}"


@dataclass
class Bench:
    """Trials of one model on one set of data.

    Attributes:
        out: the study's folder.
        command: goes on with the study.
        failed: name of a trial -> why it has no row.
    """

    plan: StudyPlan
    profile: str
    data: StudyData
    out: Path
    progress: Progress = silent
    command: str = "kore study"
    failed: dict[str, str] = field(default_factory=dict)
    _base: dict[str, Mapping[str, Scored]] = field(default_factory=dict)
    _suites: dict[str, list[Suite]] = field(default_factory=dict)

    def suites(self, split: str) -> list[Suite]:
        """The questions of a split."""
        if split not in self._suites:
            self._suites[split] = suites(self.plan, self.data, split)
        return self._suites[split]

    @cached_property
    def model(self) -> str:
        """What the untouched model is, by its weights: another one makes every row anew."""
        from kore.models.load import fingerprint, model_folder

        return fingerprint(model_folder(resolve(self.profile, dict(self.plan.settings)).profile.model.id))

    def scored(self, split: str) -> Mapping[str, Scored]:
        """The untouched base's results."""
        if split not in self._base:
            resolved = resolve(self.profile, dict(self.plan.settings))
            evals = self._evals(split)
            found = stages.evaluate(resolved, None, self.suites(split), evals, BASE, self.progress)
            self._base[split] = found.scored
        return self._base[split]

    def base(self, split: str, *, make: bool = True) -> dict[str, Any] | None:
        """The base's row; None where it is not kept and is not to be made."""

        def work() -> dict[str, Any]:
            found = self.scored(split)
            return {**row(BASE, found, None), **_types(self.suites(split), found), "answers": BASE}

        return self._kept(split, BASE, hash_json([BASE, self._asked(split)]), work if make else None)

    def rag(self, split: str, *, make: bool = True) -> dict[str, Any] | None:
        """Retrieval's row; None where it is not kept and is not to be made."""

        def work() -> dict[str, Any]:
            from kore.data.read import read_records
            from kore.data.records import KnowledgeItem
            from kore.evaluation.runner import evaluate
            from kore.methods.rag import RagEngine, Retriever
            from kore.models.load import load

            profile = resolve(self.profile, dict(self.plan.settings)).profile
            items = list(read_records(KnowledgeItem, self.data.items))
            longest = profile.eval.max_new_tokens
            retriever = Retriever(load(profile.model), items)
            engine = RagEngine(retriever, batch=profile.eval.batch, max_new_tokens=longest)
            found = evaluate(
                engine,
                self.suites(split),
                self._evals(split),
                label=RAG,
                adapter=False,
                fingerprint=engine.fingerprint,
            )
            return self._row(found, split)

        own = [hash_file(self.data.items)] if self.plan.items else []
        return self._kept(split, RAG, hash_json([RAG, self._asked(split), *own]), work if make else None)

    def trial(self, spec: Spec, split: str, *, make: bool = True) -> dict[str, Any] | None:
        """Train and score one trial, or read what it came to; None when it has no row.

        Why it has none is in `failed`. A loss that is no number is kept: it would be so again.

        Raises:
            Interrupted: stopped by a signal, after a checkpoint.
        """
        try:
            work = (lambda: self._work(spec, split)) if make else None
            found = self._kept(split, self.name(spec), self._key(spec, split), work)
        except Interrupted:
            raise
        except KoreError as error:
            found = {"failed": str(error)}
        if found is not None and "failed" not in found:
            self.failed.pop(str(spec), None)
            return {**found, "lr": spec.rate, "seed": spec.seed}
        self.failed[str(spec)] = found["failed"] if found else self.failed.get(str(spec), NOT_YET)
        return None

    def _key(self, spec: Spec, split: str) -> str:
        return hash_json([self._identity(spec), self._asked(split)])

    def known(self, spec: Spec) -> bool:
        """Whether a rate was tried, whatever came of it."""
        return self.trial(spec, VALIDATION, make=False) is not None or not self.pending(spec)

    def diverged(self, spec: Spec) -> bool:
        """Whether its training ended in a loss that is not a number."""
        return self._diverged_at(spec) is not None

    def _diverged_at(self, spec: Spec) -> str | None:
        """Where, whichever split it was to be scored on: it is one training."""
        for split in (VALIDATION, TEST):
            found = self._kept(split, self.name(spec), self._key(spec, split), None) or {}
            if "failed" in found:
                return str(found["failed"])
        return None

    def _work(self, spec: Spec, split: str) -> dict[str, Any]:
        from kore.training.trainer import NonFinite

        if failed := self._diverged_at(spec):
            return {"failed": failed}
        name = self.name(spec)
        flags = self._settings(spec)
        trial = Trial(name, spec.method, spec.samples, spec.covariance, old=self.data.old, flags=flags)
        run, evals, asked = Run(self.out / "runs" / name), self._evals(split), self.suites(split)
        try:
            if _finished(run):
                resolved = trial.resolved(self.profile)
                result = stages.evaluate(resolved, run, asked, evals, name, self.progress)
            else:
                words = shlex.split(self.command)
                run, result = run_trial(
                    trial, self.profile, run.folder, asked, evals, self.progress, command=words
                )
        except NonFinite as error:
            return {"failed": str(error)}
        told, (losses, apart) = run.state().result, _losses(run)
        return {
            **self._row(result, split),
            "params": told.get("trainable"),
            "seconds": told.get("seconds"),
            "steps": told.get("steps"),
            "losses": losses,
            "penalty_apart": apart,
        }

    def pending(self, spec: Spec) -> bool:
        """Whether it was not tried yet, or failed for a reason that may have passed."""
        return self.failed.get(str(spec)) == NOT_YET

    def name(self, spec: Spec) -> str:
        """Of its folder."""
        return f"{spec.method}-lr{spec.rate:g}-s{spec.seed}-{hash_json(self._identity(spec))[:6]}"

    def verdicts(self, found: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
        """A row's kept verdicts on the test split by suite and question."""
        folder = self._evals(TEST) / "samples" / str(found["answers"])
        return {(path.stem, v["id"]): v for path in sorted(folder.glob("*.jsonl")) for v in read_log(path)}

    def complete(self, found: dict[str, Any]) -> dict[str, Any]:
        """A row of the test split with what rows did not always hold: its steps, CEM and F1 by type."""
        if "by_type_cem" not in found:
            parts = {key: verdict["parts"] for key, verdict in self.verdicts(found).items()}
            found = {**found, **_by_type(self.suites(TEST), parts)}
        losses = found.get("losses")
        return {"steps": losses[-1][0] if losses else None, **found}

    def _settings(self, spec: Spec) -> dict[str, Any]:
        own = {"train.lr": spec.rate, "train.seed": spec.seed, "train.max_steps": self.plan.max_steps}
        return {**self.plan.settings, **own, **dict(spec.flags)}

    def _identity(self, spec: Spec) -> list[Any]:
        """Everything that decides what is trained; the data by where it lies, its manifests guard it."""
        resolved = resolve(self.profile, {**self._settings(spec), "train.method": spec.method})
        chosen = resolved.profile.model_dump(mode="json", include={"model", "adapter", "train", "method"})
        where = [str(p.relative_to(self.out)) if p else None for p in (spec.samples, spec.covariance)]
        return [chosen, where, self.model, self._old]

    def _asked(self, split: str) -> list[Any]:
        made = self.data.questions.is_file()  # not yet, where only a report is wanted
        questions = hash_file(self.data.questions) if made else None
        own = [self.profile, self.model, self.plan.suites, self.plan.limit, split, questions]
        return [*own, *(more for more in (self._evaluation, self._files) if more)]

    @cached_property
    def _old(self) -> str:
        """Of the retention samples."""
        return hash_file(self.data.old)

    @cached_property
    def _evaluation(self) -> dict[str, Any]:
        """Settings that answers depend on and that are not the profile's own, or the defaults where it is
        a file."""
        usual = resolve(self.profile, environ={}).profile if self.profile in shipped_names() else Profile()
        mine = resolve(self.profile, dict(self.plan.settings)).profile
        found = _unlike(mine.eval, usual.eval, ("batch", "max_new_tokens"))
        return found | _unlike(
            mine.model, usual.model, ("vision_select_layer", "max_pixels", "quantisation", "dtype")
        )

    @cached_property
    def _files(self) -> dict[str, str]:
        """The contents of suites that are files."""
        paths = {name: Path(name.removeprefix("agreement:")) for name in self.plan.suites}
        paths |= {n: Path(str(p).rpartition(":")[0]) for n, p in paths.items() if not p.is_file()}
        return {name: hash_file(path) for name, path in paths.items() if path.is_file()}

    def _evals(self, split: str) -> Path:
        return self.out / "eval" / name_of(self.profile) / split

    def _kept(
        self, split: str, name: str, asked: str, work: Callable[[], dict[str, Any]] | None
    ) -> dict[str, Any] | None:
        path = self.out / "rows" / name_of(self.profile) / split / f"{name}.json"
        if path.is_file() and (found := read_json(path)).get("asked") == asked:
            return dict(found)
        if work is None:
            return None
        found = {**work(), "asked": asked}
        write_json(path, found)
        return found

    def _row(self, result: Result, split: str) -> dict[str, Any]:
        scored = result.scored
        mine = row(result.label, scored, self.scored(split))
        return {**mine, **_types(self.suites(split), scored), "answers": result.label}


def _types(suites_: Sequence[Suite], scored: Mapping[str, Scored]) -> dict[str, Any]:
    """Adaptation by the question's fine type, retention by suite and by dimension.

    A suite without a dimension is one of its own.
    """
    dimensions: dict[str, list[float]] = {}
    retention: dict[str, float | None] = {}
    for suite in suites_:
        if suite.name not in scored:
            continue
        found = scored[suite.name]
        if suite.role != "adaptation":
            retention[suite.name] = found.headline
            if found.headline is not None and found.unit == "percent":
                name = f"{suite.name} (near)" if found.near else found.dimension or suite.name
                dimensions.setdefault(name, []).append(found.headline)
            continue
    parts = {(name, v.id): v.parts for name, found in scored.items() for v in found.samples}
    return {
        **_by_type(suites_, parts),
        "by_suite": retention,
        "by_dimension": {name: sum(v) / len(v) for name, v in dimensions.items()},
    }


def _by_type(
    suites_: Sequence[Suite], parts: Mapping[tuple[str, str], Mapping[str, Any]]
) -> dict[str, dict[str, float]]:
    """CEM and F1 by the question's fine type (the paper's table 9).

    Where all questions are of one type, the fact that they ask for stands in.

    Args:
        parts: suite and question -> its measures.
    """
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for suite in suites_:
        questions = getattr(suite, "questions", ()) if suite.role == "adaptation" else ()
        single = len({q.type for q in questions}) < 2
        for q in questions:
            found = parts.get((suite.name, q.question_id), {})
            if "cem" in found:
                kinds.setdefault((_asked_for(q) if single else q.type) or "other", []).append(found)
    return {
        f"by_type_{name}": {k: 100 * sum(p[name] for p in v) / len(v) for k, v in sorted(kinds.items())}
        for name in ("cem", "f1")
    }


def _asked_for(question: Any) -> str:
    key = str(question.extra.get("key", ""))
    return key.rpartition(".")[2] or str(question.type)


def _unlike(mine: object, usual: object, keys: Sequence[str]) -> dict[str, Any]:
    return {k: v for k in keys if (v := getattr(mine, k)) != getattr(usual, k)}


def _finished(run: Run) -> bool:
    """Whether the run was trained to its end; its name tells that it is the one."""
    return (run.folder / NAME).is_file() and read_manifest(run.folder).status == "done"


def _losses(run: Run) -> tuple[list[tuple[int, float]], bool]:
    """The loss of each step without its method's penalty, and whether a penalty was told apart."""
    from kore.artifacts.events import EventTail

    steps: dict[int, tuple[float, float | None]] = {}
    for event in EventTail(run.folder).read():
        if event["kind"] == "step" and event.get("loss") is not None:
            steps[event["step"]] = event["loss"], event.get("penalty")
    losses = [(step, loss - (penalty or 0.0)) for step, (loss, penalty) in sorted(steps.items())]
    return losses, any(penalty is not None for _, penalty in steps.values())
