"""``kore train``: data, model, covariance and method meet here, in a run folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.artifacts.events import EventWriter
from kore.artifacts.manifest import NAME, Manifest, claim, read_manifest
from kore.artifacts.run import Run, RunState, home, leave_pointer
from kore.data.objects import hash_source
from kore.distributed import join, on_first_rank
from kore.errors import UsageError
from kore.io.jsonl import is_stream
from kore.progress import Progress, renamed, silent
from kore.workflows.run_events import ended
from kore.workflows.stdin_buffer import spool

if TYPE_CHECKING:
    from kore.adapters.stacked import Earlier
    from kore.config.resolve import AdapterSection, Profile, Resolved
    from kore.data.records import Sample
    from kore.methods.base import Method
    from kore.models.load import Backbone
    from kore.nullspace.covariance import Covariance
    from kore.training.dataset import Located
    from kore.training.estimate import Plan
    from kore.training.fit import Long
    from kore.training.probes import Probing
    from kore.training.result import TrainResult


@dataclass(frozen=True)
class TrainRequest:
    """The options of ``kore train``.

    Attributes:
        data: samples, or ``-``; None only for a dry run that needs none.
        covariance: folder made by kore calibrate. new_covariance: of the new samples, for the contrast
            basis.
        old: retention samples, for methods that use them and for old probes.
        after: a finished run or its adapter, on whose model this one is trained.
        out: the run folder; None names one under the runs folder after method and content.
        command: argv, for the line that resumes.
    """

    resolved: Resolved
    data: str | None
    covariance: Path | None = None
    new_covariance: Path | None = None
    old: Path | None = None
    probes: Path | None = None
    after: Path | None = None
    out: Path | None = None
    image_root: Path | None = None
    download: bool = False
    restart: bool = False
    command: tuple[str, ...] = ()

    @property
    def profile(self) -> Profile:
        """The settings."""
        return self.resolved.profile


@dataclass
class Inputs:
    """What was read and checked before any model is loaded."""

    samples: list[Located]
    old: list[Sample]
    probes: Probing | None
    covariance: Covariance | None
    new_covariance: Covariance | None
    method: Method
    questions: Path | None
    earlier: Earlier | None = None
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    long: list[Long] = field(default_factory=list)


def read_inputs(request: TrainRequest, source: str) -> Inputs:
    """Read and check everything that the run needs; nothing is written.

    Args:
        source: the data's path (standard input has been spooled).

    Raises:
        DataError, MissingArtefact, ProfileError, UsageError: with place and next step.
    """
    from kore.data.read import read_located
    from kore.data.records import Sample
    from kore.methods.base import require
    from kore.methods.registry import make_method
    from kore.models.image_sizes import check_sizes
    from kore.models.token_budget import find_token_budget
    from kore.training.dataset import Located, check_pictures, images_of, read_training
    from kore.training.fit import fit_all, summary
    from kore.workflows.probe_selection import find_probes, find_questions
    from kore.workflows.sequential import read_earlier
    from kore.workflows.validate import check_training

    section = request.profile.train
    check_training(request.profile)
    method = make_method(
        section.method,
        request.profile.method.get(section.method),
        thaw_a=section.thaw_a,
        constraint=section.constraint,
    )
    covariance = _covariance(request.covariance) if section.constraint else None
    new = _covariance(request.new_covariance)
    require(
        method,
        zero=section.zero,
        factors=covariance is not None or not section.constraint,
        old=request.old is not None,
        quantised=request.profile.model.quantisation != "none",
    )
    earlier = read_earlier(request.after, method) if request.after else None
    skipped: list[str] = []
    spooled = request.data is not None and Path(source) != Path(request.data)
    image_root = request.image_root or (Path.cwd() if spooled else None)
    samples = read_training(source, image_root=image_root, on_skip=skipped.append)
    found = [Located(*pair) for pair in read_located(Sample, request.old)] if request.old else []
    check_pictures(found)
    budget = find_token_budget(request.profile.model, section, download=request.download)
    if budget:
        check_sizes(images_of([*samples, *found]), lambda: budget.encoder.processor)
    fitted = fit_all(samples, found if method.traits.needs_old else [], budget, section.on_long)
    old = [one.sample for one in (fitted[1].samples if method.traits.needs_old else found)]
    long = [*fitted[0].long, *fitted[1].long]
    questions = find_questions(source)
    probes = find_probes(request.probes, questions, old, section)
    uses = covariance if method.traits.needs_factors else None
    notes = []
    if request.covariance and uses is None:
        notes.append(f"{section.method} uses no covariance: {request.covariance} is not looked at")
    if long:
        notes.append(summary(long, section.max_length))
    return Inputs(fitted[0].samples, old, probes, uses, new, method, questions, earlier, skipped, notes, long)


def _covariance(folder: Path | None) -> Covariance | None:
    if folder is None:
        return None
    from kore.nullspace.covariance import Covariance

    return Covariance(folder)


def adapter_rank(profile: Profile, backbone: Backbone) -> int:
    """KORE's rank for methods without a covariance: the section's, or what its budget pays for.

    Raises:
        ProfileError: rank auto and keep need the covariance's spectrum.
    """
    from kore.methods.param_count import kore_rank
    from kore.models.families import language_linears

    return kore_rank(net_section(profile, backbone), language_linears(backbone.model, backbone.family))


def net_section(profile: Profile, backbone: Backbone) -> AdapterSection:
    """The adapter's settings, its budget without what the projector takes of it."""
    from kore.methods import param_count as parameters

    return parameters.net_section(profile, backbone.model, backbone.family)


def run_training(
    request: TrainRequest,
    *,
    progress: Progress = silent,
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Train one run from its request to its adapter, or go on with it.

    Args:
        note: told what a person should know before step 1.

    Returns:
        The result's numbers and paths.
    """
    from kore.training.fit import write_long
    from kore.training.heartbeat import pulse
    from kore.workflows.run_factors import read_report

    section = request.profile.train
    source = spool(request.data)
    with join(deepspeed=section.zero > 0) as here, ExitStack() as held:
        inputs = read_inputs(request, source)
        run, manifest = _describe(request, inputs, source)

        def begin() -> bool:
            """Claim the run folder; whether there is anything left to do."""
            locked = request.restart and (run.folder / NAME).exists()
            if locked:  # what another process works on must not be discarded under it
                held.enter_context(run.locked())
            claim(run.folder, manifest, restart=request.restart)
            if read_manifest(run.folder).status == "done":
                return False
            if not locked:
                held.enter_context(run.locked())
            _begin(request, inputs, run, source, manifest)
            return True

        if not on_first_rank(begin):
            note(f"{run.folder}: finished before, nothing to do")
            return {"run": str(run.folder), "method": section.method, **run.state().result}
        if not here.first:
            value = _work(request, inputs, run, source, None, silent, lambda text: None)
            return {"run": str(run.folder), **value}
        with EventWriter(run.folder) as events, run.log.open("a", encoding="utf-8") as log:

            def told(text: str) -> None:
                note(text)
                log.write(text + "\n")
                log.flush()

            for text in inputs.notes:
                told(text)
            for text in inputs.skipped:
                events.write("warning", text=text, code="masked")
                told(f"warning: {text}")
            try:
                with pulse(events):
                    value = _work(request, inputs, run, source, events, progress, told)
            except BaseException as error:
                ended(run, events, error)
                raise
            if inputs.long:
                value["long"] = write_long(run.folder, inputs.long)
            run.update(status="finished", ended=time.time(), result=value)
            events.write("status", phase="finished", text=f"adapter in {run.adapter}")
            manifest.finished(**value, factors=read_report(run.folder)).write(run.folder)
        return {"run": str(run.folder), **value}


def run_folder(request: TrainRequest) -> Path:
    """Where the run will be.

    Raises:
        UsageError: standard input cannot be read twice.
    """
    if request.out is not None:
        return request.out
    if request.data is None or is_stream(request.data):
        raise UsageError("data from standard input needs a run folder here", hint="name one with -o")
    source = spool(request.data)
    return _describe(request, read_inputs(request, source), source)[0].folder


def _describe(request: TrainRequest, inputs: Inputs, source: str) -> tuple[Run, Manifest]:
    """The run's folder and the manifest that it should carry."""
    from kore.models.load import fingerprint, model_folder
    from kore.training.dataset import data_hash
    from kore.training.hf_args import NO_EFFECT

    profile = request.profile
    base = fingerprint(model_folder(profile.model.id, download=request.download))
    chosen = profile.model_dump(mode="json", include={"model", "adapter", "train"})
    sums = {"data": data_hash(inputs.samples), "model": base}
    if inputs.covariance:
        sums["covariance"] = inputs.covariance.manifest.fingerprint
    if inputs.new_covariance:
        sums["new_covariance"] = inputs.new_covariance.manifest.fingerprint
    if inputs.earlier:
        inputs.earlier.check(base)
        sums["after"] = inputs.earlier.fingerprint
    if request.old and inputs.method.traits.needs_old:
        sums["old"] = hash_source(request.old)
    chosen["method"] = {profile.train.method: inputs.method.settings.model_dump(mode="json")}
    for name in NO_EFFECT:
        chosen["train"].pop(name)
    manifest = Manifest("run", chosen, sums, {"data": str(Path(source).resolve())})
    name = f"{profile.train.method}-{manifest.fingerprint[:8]}"
    return Run(request.out or home() / name), manifest


def _begin(request: TrainRequest, inputs: Inputs, run: Run, source: str, manifest: Manifest) -> None:
    from kore.models.load import model_folder
    from kore.training.probes import write_probes

    profile = request.profile
    paths: dict[str, Path | None] = {
        "data": Path(source),
        "model": model_folder(profile.model.id),
        "covariance": request.covariance,
        "new_covariance": request.new_covariance,
        "old": request.old,
        "questions": inputs.questions,
        "after": request.after,
        "image_root": request.image_root,
    }
    sums = manifest.inputs
    run.write(
        RunState(
            status="running",
            method=profile.train.method,
            command=list(request.command),
            profile=profile.model_dump(mode="json"),
            inputs={
                name: {"path": str(path.resolve()), "hash": sums.get(name, "")}
                for name, path in paths.items()
                if path is not None
            },
            fingerprint=manifest.fingerprint,
        )
    )
    leave_pointer(run)
    if inputs.probes and inputs.probes.enabled:
        write_probes(run.folder / "probes.jsonl", inputs.probes.probes)


def _work(
    request: TrainRequest,
    inputs: Inputs,
    run: Run,
    source: str,
    events: EventWriter | None,
    progress: Progress,
    note: Callable[[str], None],
) -> dict[str, Any]:
    from kore.models.load import load
    from kore.training.estimate import describe
    from kore.training.run import train
    from kore.workflows.run_factors import copy_spectra, identity, run_factors

    profile, section = request.profile, request.profile.train
    if events:
        events.write("status", phase="load", text="loading the model")
    backbone = load(profile.model, download=request.download)
    factors = None
    whole: dict[str, Any] = {}
    if inputs.earlier is not None:
        inputs.earlier.stack_on(backbone)
    if inputs.covariance is not None:
        if events:
            events.write("status", phase="null space", text="computing A from the covariance")
        adapter = net_section(profile, backbone)
        factors = run_factors(run.folder, backbone, inputs.covariance, adapter, inputs.new_covariance)
        whole = identity(inputs.covariance, profile.adapter, inputs.new_covariance)
        spectra = partial(copy_spectra, inputs.covariance, run.folder, run.spectra)
        on_first_rank(spectra)
    if inputs.earlier is not None:
        whole["after"] = inputs.earlier.fingerprint
    rank: int | Mapping[str, int]
    rank = {n: len(a) for n, a in factors.items()} if factors else adapter_rank(profile, backbone)

    def on_plan(made: Plan) -> None:
        for line in describe(made):
            note(line)

    result: TrainResult = train(
        backbone,
        inputs.samples,
        section,
        inputs.method,
        run,
        events,
        inputs.probes,
        factors=factors,
        rank=rank,
        old=inputs.old,
        identity=whole,
        facts={
            "model": str(backbone.path),
            "covariance": whole.get("covariance"),
            "data": {"path": source, "samples": len(inputs.samples)},
        },
        progress=renamed(progress, f"train {section.method}"),
        on_plan=on_plan,
    )
    value = asdict(result)
    return {**value, "adapter": str(result.adapter), "method": section.method}
