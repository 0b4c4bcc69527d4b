"""What ``kore eval`` does, apart from words on a terminal: plan, answer, score, write, check gates."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.artifacts.manifest import Manifest, claimed, locked, read_manifest
from kore.artifacts.run import data_root, run_at
from kore.errors import MissingArtefact, UsageError
from kore.evaluation.gates import check_gates, parse_gates
from kore.evaluation.option_matching import COMPATS, Compat
from kore.evaluation.prompt_formats import Style
from kore.evaluation.report import summary, write_summary
from kore.evaluation.rescore import rescore
from kore.evaluation.runner import BASE, Progress, Result, World, evaluate
from kore.evaluation.suites import Choice, resolve_suites
from kore.evaluation.target import Target, find_target, load_target
from kore.evaluation.text_only import takes_images, without_images
from kore.evaluation.types import Suite
from kore.io.files import check_place, read_json
from kore.patience import PATIENCE

if TYPE_CHECKING:
    from kore.config.resolve import EvalSection, Profile
    from kore.evaluation.judge import Judge
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
    settings: list[str] = field(default_factory=list)
    protocol: str | None = None
    compat: str = "vlmeval-688e9da"
    judge: str | None = None
    judge_url: str | None = None
    judge_prompts: Path | None = None
    split: str = "test"
    image_root: Path | None = None
    limit: int | None = None
    ids: frozenset[str] = frozenset()
    max_new_tokens: int | None = None
    base: bool = True
    rag: Path | None = None
    rescore: bool = False
    fail_under: list[str] = field(default_factory=list)
    export: Path | None = None
    html: bool = False
    download: bool = False
    restart: bool = False

    def resolved(self) -> Profile:
        """The named profile, else the target's own settings, with the flags over it."""
        from kore.recorded import resolve_for

        flags: dict[str, Any] = {
            "eval.protocol": self.protocol,
            "eval.judge": self.judge,
            "eval.judge_base_url": self.judge_url,
            "eval.max_new_tokens": self.max_new_tokens,
        }
        for text in self.settings:
            key, sign, value = text.partition("=")
            if not sign:
                raise UsageError(f"--set {text}: expected KEY=VALUE")
            flags[key.strip()] = value.strip()
        return resolve_for(self.target, self.profile, flags).profile


@dataclass(frozen=True)
class Plan:
    """A request checked against what is there; nothing was asked yet."""

    request: Request
    profile: Profile
    target: Target | None
    suites: list[Suite]
    names: list[str]
    judge: Judge
    out: Path
    style: Style
    protocol: str
    notes: tuple[str, ...] = ()

    @property
    def answers(self) -> int:
        """How many samples are answered, over both models."""
        return sum(map(len, self.suites)) * (len(self.passes) + (self.request.rag is not None))

    @property
    def passes(self) -> list[tuple[str, bool]]:
        """Who answers, by label and whether with the adapter; retrieval is compared with the base, too."""
        if self.target is None:
            return []
        tuned, asked = self.target.adapter is not None, self.request.base or self.request.rag is not None
        return [(BASE, False)] * (asked or not tuned) + [(self.target.label, True)] * tuned

    def to_json(self) -> dict[str, Any]:
        """What would be done: models, suites with their samples, judge, folder."""
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
        """Every sample's prompt: suite, id, turns, pictures."""
        for suite in self.suites:
            for task in islice(suite.tasks(), self.request.limit):
                turns = [{"text": a.text, "pictures": [p.path for p in a.pictures]} for a in task.asks]
                yield {"suite": suite.name, "id": task.id, "turns": turns}


@dataclass(frozen=True)
class Outcome:
    """What an evaluation ended with; only the first of several processes has a summary."""

    summary: dict[str, Any]
    out: Path
    gates: dict[str, float]
    warnings: list[str]
    rank: int = 0

    def check_gates(self) -> None:
        """Raise GateNotMet if a figure is below its bar."""
        if self.gates:
            check_gates(self.summary, self.gates)


def plan(request: Request) -> Plan:
    """Check a request and read its suites.

    Raises:
        UsageError, DataError, MissingArtefact, ProfileError: what is wrong with it.
    """
    from kore.evaluation.judge import make_judge

    profile = request.resolved()
    if request.rag and not request.rag.exists():
        raise MissingArtefact(
            f"nothing to look up: {request.rag}", hint="name items.jsonl, or a folder made by: kore augment"
        )
    target = None if request.rescore else find_target(request.target, profile.model)
    out = request.out or default_out(request.target, target)
    check_place(out)
    judge = make_judge(
        profile.eval.judge,
        base_url=profile.eval.judge_base_url,
        prompts=request.judge_prompts,
        record=out / "judge",
        section=profile.model,
    )
    split = request.split
    if request.rescore:  # stored answers belong to the prompts that they were given to
        before = read_manifest(out, kind="eval", made_by="kore eval")
        style, protocol = before.settings["style"], before.settings["protocol"]
        split = before.facts.get("split", split)
    else:
        style = "llava" if target and model_type(target.model) == "llava" else "default"
        protocol = profile.eval.protocol
    choice = Choice(
        data=request.data or data_root(),
        protocol=protocol,
        compat=compat_of(request.compat),
        style=style,
        split=split,
        judge=judge,
        limit=request.limit,
        ids=request.ids,
        image_root=request.image_root,
        max_new_tokens=request.max_new_tokens,
    )
    names = request.suites or _default_suites(request, profile, target, out)
    suites = resolve_suites(names, choice)
    notes: list[str] = []
    if target is not None and not takes_images(target.model):
        suites, notes = without_images(suites)
    parse_gates(request.fail_under, [s.name for s in suites])
    if not request.rescore:
        for suite in suites:
            check_pictures(suite)
    return Plan(request, profile, target, suites, names, judge, out, style, protocol, tuple(notes))


def check_pictures(suite: Suite) -> None:
    """Refuse pictures that lie in files of their own and are missing or none, before a model is loaded.

    Raises:
        DataError: names the picture and the question's place.
    """
    from kore.models.processing import check_image

    known: set[str] = set()
    for task in suite.tasks():
        for picture in (p for ask in task.asks for p in ask.pictures):
            if picture.data is None and picture.path not in known:
                check_image(picture.path, picture.where or f"sample {task.id}")
                known.add(picture.path)


def compat_of(name: str) -> Compat:
    """The version of option inference of that name.

    Raises:
        UsageError: there is none.
    """
    for compat in COMPATS:
        if compat == name:
            return compat
    raise UsageError(f"--compat knows {', '.join(COMPATS)}, not {name!r}")


def model_type(model: str) -> str | None:
    """What kind of model it is, from its configuration alone; None if that is not at hand."""
    from kore.models.load import EMBEDDED, embedded_base

    path = (embedded_base() if model == EMBEDDED else Path(model)) / "config.json"
    return read_json(path).get("model_type") if path.is_file() else None


def default_out(name: str, target: Target | None) -> Path:
    """Inside a run: its eval folder; else ``eval-NAME`` here."""
    folder = Path(name)
    if run := run_at(folder):
        return run.evals / "results"
    stem = (target.label if target and target.adapter else folder.name) or "results"
    return Path(f"eval-{stem}")


def _default_suites(request: Request, profile: Profile, target: Target | None, out: Path) -> list[str]:
    """Those of the stored results; else the run's own questions, then the profile's suites."""
    if request.rescore:
        return [str(n) for n in read_manifest(out, kind="eval", made_by="kore eval").facts.get("suites", [])]
    own = [str(target.questions)] if target and target.questions and target.questions.is_file() else []
    names = [*own, *profile.eval.suites]
    if not names:
        raise UsageError(
            "nothing to evaluate on", hint="name suites with --suite, e.g. --suite eval.jsonl,benchmarks"
        )
    return names


def carry_out(request: Request, progress: Progress | None = None, planned: Plan | None = None) -> Outcome:
    """Answer, score and write; see `Request`.

    Args:
        planned: the request's plan, where it was made already.

    Raises:
        KoreError: what `plan` raises, and what loading, answering and judging may.
    """
    planned = planned or plan(request)
    with ExitStack() as held:
        return _carried_out(request, progress, planned, held)


def _carried_out(request: Request, progress: Progress | None, planned: Plan, held: ExitStack) -> Outcome:
    if request.rescore:
        held.enter_context(locked(planned.out))
        results = rescore(planned.out, planned.suites, _notes(request))
        world = World()
    else:
        world = join_world()
        results = _answer(planned, world, progress, held)
        if world.rank:
            return Outcome({}, planned.out, {}, [], world.rank)
    value = summary(
        results,
        protocol=planned.protocol,
        compat=request.compat,
        judge=planned.judge.facts,
        subset=bool(request.limit or request.ids),
        split=request.split,
    )
    warnings = [*planned.notes, *_file_warnings(planned.suites), *_write(planned, results, value)]
    gates = parse_gates(request.fail_under, [s.name for s in planned.suites])
    return Outcome(value, planned.out, gates, warnings)


def _file_warnings(suites: Sequence[Suite]) -> list[str]:
    told = [w for s in suites for w in s.facts.get("warnings", ())]
    if len(told) > 2:
        names = ", ".join(s.name for s in suites if s.facts.get("warnings"))
        return [f"{len(told)} files are not the published ones ({names}); kore data check tells the MD5 sums"]
    return told


def _notes(request: Request) -> tuple[str, ...]:
    return ("subset of the samples",) if request.limit or request.ids else ()


def _answer(planned: Plan, world: World, progress: Progress | None, held: ExitStack) -> dict[str, Result]:
    from kore.evaluation.runner import generation, model_fingerprint
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
    settings = {"protocol": planned.protocol, "style": planned.style, **generation(engine)}
    manifest = Manifest(
        "eval", settings, inputs,
        sources={"model": target.model, **({"adapter": str(target.adapter)} if target.adapter else {})},
        facts={"suites": planned.names, "label": target.label, "split": request.split},
    )  # fmt: skip
    if world.rank == 0:
        held.enter_context(claimed(planned.out, manifest, restart=request.restart, always=True))
    world.barrier()
    planned.judge.open()
    results: dict[str, Result] = {}
    for label, adapter in planned.passes:
        results[label] = evaluate(
            engine, planned.suites, planned.out, label=label, adapter=adapter, progress=progress,
            world=world, protocol=section.protocol, notes=_notes(request),
        )  # fmt: skip
    if retrieving:
        results[RAG] = evaluate(
            retrieving, planned.suites, planned.out, label=RAG, adapter=False, progress=progress,
            fingerprint=retrieving.fingerprint, world=world, protocol=section.protocol, notes=_notes(request),
        )  # fmt: skip
    if world.rank == 0:
        asked = {label: {"asked": r.asked, "kept": r.kept} for label, r in results.items()}
        manifest.finished(answers=asked).write(planned.out)
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


def join_world() -> World:
    """This process's share under ``torchrun``; alone otherwise."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size <= 1:
        return World()
    import torch
    import torch.distributed as dist

    if "MASTER_ADDR" not in os.environ:
        raise MissingArtefact(
            "WORLD_SIZE is set without MASTER_ADDR",
            hint="start with: torchrun --nproc-per-node N -m kore_cli.main eval ...",
        )
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))  # else all would load on the first
    if not dist.is_initialized():
        dist.init_process_group("gloo", timeout=PATIENCE)
    return replace(World(dist.get_rank(), size), barrier=dist.barrier)
