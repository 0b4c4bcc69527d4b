"""The engine of ``kore eval``: plan, answer, score, write, check gates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.artifacts.manifest import Manifest, claimed, locked, read_manifest
from kore.artifacts.model_folder import model_folder
from kore.artifacts.resolve_target import Target, resolve_target
from kore.artifacts.run import data_root, run_named
from kore.config.model_defaults import resolve_inference
from kore.data.benchmark_prompts import PromptForm
from kore.distributed import join, on_first_rank
from kore.errors import MissingArtefact, ProviderError, UsageError
from kore.evaluation.gates import check_gates, parse_gates
from kore.evaluation.judge import Judge, make_judge
from kore.evaluation.option_matching import COMPATS, Compat
from kore.evaluation.report import summary, write_summary
from kore.evaluation.rescore import rescore
from kore.evaluation.runner import BASE, Result, evaluate, generation, model_fingerprint
from kore.evaluation.suite_options import SuiteOptions
from kore.evaluation.suites import check_images, resolve_suites
from kore.evaluation.target import load_target
from kore.evaluation.text_loss import LossSuite
from kore.evaluation.text_only import takes_images, without_images
from kore.evaluation.types import Suite
from kore.io.files import check_place
from kore.models.image_sizes import check_sizes
from kore.progress import Progress, silent

if TYPE_CHECKING:
    from kore.config.resolve import EvalSection, Profile, Resolved
    from kore.methods.rag import RagEngine
    from kore.models.load import Backbone


@dataclass(frozen=True)
class Request:
    """The options of ``kore eval``, as given."""

    target: str
    suites: list[str] = field(default_factory=list)
    data: Path | None = None
    out: Path | None = None
    profile: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    compat: str = "vlmeval-688e9da"
    judge_prompts: Path | None = None
    split: str = "test"
    image_root: Path | None = None
    limit: int | None = None
    ids: frozenset[str] = frozenset()
    base: bool = True
    rag: Path | None = None
    rescore: bool = False
    fail_under: list[str] = field(default_factory=list)
    export: Path | None = None
    html: bool = False
    download: bool = False
    restart: bool = False

    def resolved(self) -> Resolved:
        """The named profile, else the target's own settings, with `settings` over them."""
        return resolve_inference(self.target, self.profile, dict(self.settings), download=self.download)


@dataclass(frozen=True)
class Plan:
    """A checked request with its suites; nothing has been answered yet."""

    request: Request
    profile: Profile
    target: Target | None
    suites: list[Suite]
    names: list[str]
    judge: Judge
    out: Path
    form: PromptForm
    notes: tuple[str, ...] = ()

    @property
    def answers(self) -> int:
        """Number of samples to answer, over all models."""
        return sum(map(len, self.suites)) * (len(self.passes) + (self.request.rag is not None))

    @property
    def passes(self) -> list[tuple[str, bool]]:
        """The models to evaluate: label, and whether the adapter is on."""
        if self.target is None:
            return []
        tuned = self.target.adapter is not None
        base = self.request.base or self.request.rag is not None or not tuned
        return [(BASE, False)] * base + [(self.target.label, True)] * tuned

    def to_json(self) -> dict[str, Any]:
        """Models, suites with their samples, judge, folder."""
        return {
            "target": self.request.target,
            "model": self.target.model if self.target else None,
            "adapter": str(self.target.adapter) if self.target and self.target.adapter else None,
            "suites": [{"suite": s.name, "samples": len(s), **s.facts} for s in self.suites],
            "samples": sum(map(len, self.suites)),
            "answers": self.answers,
            "judge": self.judge.name,
            **({"rag": str(self.request.rag)} if self.request.rag else {}),
            "out": str(self.out),
        }

    def prompts(self) -> Iterator[dict[str, Any]]:
        """Every sample's prompt: suite, id, turns, images."""
        for suite in self.suites:
            for task in islice(suite.tasks(), self.request.limit):
                turns = [{"text": t.text, "pictures": [i.path for i in t.images]} for t in task.turns]
                yield {"suite": suite.name, "id": task.id, "turns": turns}


@dataclass(frozen=True)
class Outcome:
    """What an evaluation ended with, the same on every rank but for `rank`."""

    summary: dict[str, Any]
    out: Path
    gates: dict[str, float]
    warnings: list[str]
    rank: int = 0

    def check(self) -> None:
        """Fail where the results, which are written by now, are not what was asked for.

        Raises:
            ProviderError: a judge that gave nothing to score with. GateNotMet: a figure below its bar.
        """
        unjudged = [
            f"{name} ({label})"
            for name, suite in self.summary.get("suites", {}).items()
            for label, result in suite["results"].items()
            if result["headline"] is None and result["counts"].get("judge_asked")
        ]
        if unjudged:
            raise ProviderError(
                f"not scored, because the judge gave no usable reply: {', '.join(unjudged)}",
                hint=f"the answers are kept; score them with another judge: kore eval ... -o {self.out} "
                "--rescore --judge JUDGE",
            )
        if self.gates:
            check_gates(self.summary, self.gates)


def plan(request: Request) -> Plan:
    """Check a request and read its suites.

    Raises:
        UsageError, DataError, MissingArtefact, ProfileError: a defect of the request.
    """
    profile = request.resolved().profile
    if request.rag and not request.rag.exists():
        raise MissingArtefact(
            f"nothing to retrieve from: {request.rag}",
            hint="name items.jsonl, or a folder written by: kore augment",
        )
    target = None if request.rescore else resolve_target(request.target, profile.model.id)
    out = request.out or default_out(request.target, target)
    check_place(out)
    judge = make_judge(
        profile.eval.judge,
        base_url=profile.eval.judge_base_url,
        prompts=request.judge_prompts,
        record=out / "judge",
        section=profile.model,
        longest_wait=profile.eval.judge_longest_wait,
    )
    split = request.split
    if request.rescore:  # the stored answers belong to the stored prompt form
        before = read_manifest(out, kind="eval", made_by="kore eval")
        form = PromptForm(before.settings["protocol"], before.settings["style"])
        split = before.facts.get("split", split)
    else:
        protocol = profile.eval.protocol
        form = PromptForm.of_model(target.model, protocol) if target else PromptForm(protocol)
    choice = SuiteOptions(
        data=request.data or data_root(),
        form=form,
        compat=compat_of(request.compat),
        split=split,
        judge=judge,
        limit=request.limit,
        ids=request.ids,
        image_root=request.image_root,
        max_new_tokens=profile.eval.max_new_tokens if "eval.max_new_tokens" in request.settings else None,
    )
    names = request.suites or _default_suites(request, profile, target, out)
    suites = resolve_suites(names, choice)
    notes: list[str] = []
    if target is not None and not takes_images(target.model):
        suites, notes = without_images(suites)
    _gates(request, suites)
    if not request.rescore:
        images: dict[str, str] = {}
        for suite in suites:
            images |= check_images(suite)
        if target is not None:
            _check_sizes(images, target.model, request.download, profile)
    return Plan(request, profile, target, suites, names, judge, out, form, tuple(notes))


def _check_sizes(images: dict[str, str], model: str, download: bool, profile: Profile) -> None:
    """Refuse images that the model's processor does not take."""

    def processor() -> Any:
        from kore.models.load import load_processor

        return load_processor(model_folder(model, download=download), profile.model)

    check_sizes(images.items(), processor)


def compat_of(name: str) -> Compat:
    """The version of option inference with this name.

    Raises:
        UsageError: an unknown name.
    """
    for compat in COMPATS:
        if compat == name:
            return compat
    raise UsageError(f"--compat: {name!r} is not one of {', '.join(COMPATS)}")


def default_out(name: str, target: Target | None) -> Path:
    """The run's eval folder, else ``eval-NAME`` in the working folder."""
    if run := run_named(name):
        return run.evals / "results"
    stem = (target.label if target and target.adapter else Path(name).name) or "results"
    return Path(f"eval-{stem}")


def _default_suites(request: Request, profile: Profile, target: Target | None, out: Path) -> list[str]:
    """The suites of the stored results, else the run's own questions and the profile's suites."""
    if request.rescore:
        return [str(n) for n in read_manifest(out, kind="eval", made_by="kore eval").facts.get("suites", [])]
    own = [str(target.questions)] if target and target.questions and target.questions.is_file() else []
    names = [*own, *profile.eval.suites]
    if not names:
        raise UsageError(
            "nothing to evaluate on", hint="name suites with --suite, e.g. --suite eval.jsonl,benchmarks"
        )
    return names


def carry_out(request: Request, progress: Progress = silent, planned: Plan | None = None) -> Outcome:
    """Answer, score and write; see `Request`.

    Args:
        planned: the request's plan, if there is one already.

    Raises:
        KoreError: as `plan`, and what loading, answering and judging raise.
    """
    planned = planned or plan(request)
    # only answers are shared out, so that no GPU communicates: workers may share one
    with join(backend="gloo") as world, ExitStack() as locks:
        answered = {} if request.rescore else _answer(planned, progress, locks)

        def finish() -> Outcome:
            results = answered
            if request.rescore:
                locks.enter_context(locked(planned.out))
                results = rescore(planned.out, planned.suites, _notes(request))
            return _finish(planned, results)

        return replace(on_first_rank(finish), rank=world.rank)


def _finish(planned: Plan, results: dict[str, Result]) -> Outcome:
    """Summarise the results and write them."""
    request = planned.request
    value = summary(
        results,
        protocol=planned.form.protocol,
        compat=request.compat,
        judge=planned.judge.facts,
        subset=bool(request.limit or request.ids),
        split=request.split,
    )
    warnings = [*planned.notes, *_file_warnings(planned.suites), *_write(planned, results, value)]
    return Outcome(value, planned.out, _gates(request, planned.suites), warnings)


def _gates(request: Request, suites: Sequence[Suite]) -> dict[str, float]:
    """The gates; a loss has none, because a lower one is better."""
    return parse_gates(request.fail_under, [s.name for s in suites if not isinstance(s, LossSuite)])


def _file_warnings(suites: Sequence[Suite]) -> list[str]:
    warnings = [w for s in suites for w in s.facts.get("warnings", ())]
    if len(warnings) > 2:
        names = ", ".join(s.name for s in suites if s.facts.get("warnings"))
        return [f"{len(warnings)} files are not the published ones ({names}); see kore data check"]
    return warnings


def _notes(request: Request) -> tuple[str, ...]:
    return ("subset of the samples",) if request.limit or request.ids else ()


def _answer(planned: Plan, progress: Progress, locks: ExitStack) -> dict[str, Result]:
    from kore.methods.rag import RAG
    from kore.models.generate import Engine

    request, target = planned.request, planned.target
    assert target is not None
    backbone = load_target(target, planned.profile.model, download=request.download)
    section = planned.profile.eval
    engine = Engine(backbone, batch=section.batch, max_new_tokens=section.max_new_tokens)
    tuned = model_fingerprint(engine, True)
    inputs = {"model": backbone.fingerprint, **({"tuned": tuned} if target.adapter else {})}
    retrieving = _retrieval(request.rag, backbone, section) if request.rag else None
    if retrieving:
        inputs["rag"] = retrieving.fingerprint
    settings = {"protocol": planned.form.protocol, "style": planned.form.style, **generation(engine)}
    manifest = Manifest(
        "eval",
        settings,
        inputs,
        sources={"model": target.model, **({"adapter": str(target.adapter)} if target.adapter else {})},
        facts={"suites": planned.names, "label": target.label, "split": request.split},
    )
    claim = claimed(planned.out, manifest, restart=request.restart, always=True)
    on_first_rank(lambda: locks.enter_context(claim))
    planned.judge.open()
    results: dict[str, Result] = {}
    for label, adapter in planned.passes:
        results[label] = evaluate(
            engine,
            planned.suites,
            planned.out,
            label=label,
            adapter=adapter,
            progress=progress,
            protocol=section.protocol,
            notes=_notes(request),
        )
    if retrieving:
        results[RAG] = evaluate(
            retrieving,
            planned.suites,
            planned.out,
            label=RAG,
            adapter=False,
            progress=progress,
            fingerprint=retrieving.fingerprint,
            protocol=section.protocol,
            notes=_notes(request),
        )
    counts = {label: {"asked": r.generated, "kept": r.reused} for label, r in results.items()}
    on_first_rank(lambda: manifest.finished(answers=counts).write(planned.out))
    return results


def _retrieval(path: Path, backbone: Backbone, section: EvalSection) -> RagEngine:
    from kore.methods.rag import RagEngine, Retriever, read_items

    retriever = Retriever(backbone, read_items(path))
    return RagEngine(retriever, batch=section.batch, max_new_tokens=section.max_new_tokens)


def _write(planned: Plan, results: dict[str, Result], value: dict[str, Any]) -> list[str]:
    write_summary(value, planned.out)
    warnings: list[str] = []
    if planned.request.export:
        from kore.evaluation.export import export_results

        warnings += export_results(planned.suites, results, planned.request.export).warnings
    if planned.request.html:
        from kore.evaluation.html_report import write_page

        write_page(value, results, planned.suites, planned.out / "report.html")
    return warnings
