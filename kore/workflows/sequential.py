"""Going on from an earlier run: what it left, and a covariance that protects its batch beside the old."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.artifacts.run import ADAPTER, Run, run_at
from kore.errors import DataError, MissingArtefact, UsageError
from kore.io.jsonl import write_jsonl
from kore.workflows import stages

if TYPE_CHECKING:
    from kore.adapters.stacked import Earlier
    from kore.config.resolve import Resolved
    from kore.data.records import Sample
    from kore.methods.base import Method
    from kore.nullspace.covariance import Covariance
    from kore.progress import Progress

AFTER = "after"


@dataclass(frozen=True)
class Batch:
    """One earlier run of a chain.

    Attributes:
        data: the samples that it was trained on. image_root: where their relative pictures lie, if told.
        questions: on its items, if its data brought some.
        covariance: what it protected, with the fingerprint that it had then.
    """

    run: Path
    method: str
    data: Path
    questions: Path | None
    covariance: Path | None
    samples: int
    image_root: Path | None = None

    def to_json(self) -> dict[str, str | int | None]:
        """For ``--dry-run``."""
        paths = {"run": self.run, "data": self.data, "covariance": self.covariance}
        told = {name: str(path) if path else None for name, path in paths.items()}
        return {**told, "method": self.method, "samples": self.samples}


def find_adapter(path: Path) -> Path:
    """The finished adapter of a run folder, of the folder that ``kore inject`` made around one, or of an
    adapter folder itself.

    Raises:
        MissingArtefact: nothing of that kind, or a run that is not finished.
    """
    run = run_at(path)
    if run is None:
        if (path / ADAPTER).is_file():
            return path
        raise MissingArtefact(
            f"no run here: {path}", hint="name a finished run of kore train or kore inject, or its adapter"
        )
    state = run.state()
    if state.status != "finished" or not (run.adapter / ADAPTER).is_file():
        raise MissingArtefact(
            f"{run.folder} is not finished (status: {state.status})",
            hint=f"finish it first: {state.again or 'with the command that began it'}",
        )
    return run.adapter


def find_run(path: Path) -> Run:
    """The finished run at `path`; an adapter folder alone will not do.

    Raises:
        MissingArtefact: no run, or not a finished one.
    """
    find_adapter(path)
    run = run_at(path)
    if run is None:
        raise MissingArtefact(
            f"{path} is an adapter without its run", hint="name the run folder, which knows its samples"
        )
    return run


def read_earlier(path: Path, method: Method | None = None) -> Earlier:
    """The adapter to go on from.

    Args:
        path: see `find_adapter`.
        method: what is to be trained on it.

    Raises:
        UsageError: an adapter or a method that cannot be chained, with the reason.
        MissingArtefact, DataError: see `find_adapter` and `Earlier`.
    """
    from kore.adapters.lora import read_facts
    from kore.adapters.stacked import Earlier
    from kore.methods.registry import METHODS, method_class

    if method is not None and not method.traits.exportable:
        raise UsageError(f"{method.name} cannot go on from an earlier adapter: {method.traits.why}")
    adapter = find_adapter(path)
    form = str(read_facts(adapter).get("format", "peft"))
    if form != "peft":
        why = method_class(form).traits.why if form in METHODS else f"its format is {form}"
        raise UsageError(f"nothing can go on from {path}, trained with {form}: {why}")
    return Earlier(adapter)


def batches(path: Path) -> Iterator[Batch]:
    """The runs of the chain that ends with `path`, newest first, as far as their folders are there."""
    run = run_at(path)
    while run is not None:
        state = run.state()
        inputs = {name: Path(value["path"]) for name, value in state.inputs.items()}
        if "data" in inputs:
            yield Batch(
                run=run.folder,
                method=state.method,
                data=inputs["data"],
                questions=inputs.get("questions"),
                covariance=inputs.get("covariance"),
                samples=int(state.result.get("samples") or 0),
                image_root=inputs.get("image_root"),
            )
        run = run_at(inputs[AFTER]) if AFTER in inputs else None


def protect(
    resolved: Resolved,
    path: Path,
    folder: Path,
    progress: Progress,
    *,
    new: Path | None = None,
    restart: bool = False,
) -> Path:
    """A covariance of the old samples and of every earlier batch, in ``folder/covariance``.

    The run's own samples are summed with their answers, which hold the facts, on the model with the run's
    adapter in place, and added to what the run itself protected. A run that protected nothing gets the
    profile's old samples, summed on the same model.

    Args:
        new: samples to learn now, for layers that auto chooses.

    Returns:
        The folder of the sum.

    Raises:
        DataError: samples or covariance are no longer those that the run was trained with.
    """
    from kore.data.records import relative_to
    from kore.nullspace.combine import combine
    from kore.nullspace.layer_selection import parse_share

    run = find_run(path)
    batch = next(batches(run.folder))
    samples = _own_samples(run, batch)
    profile = resolved.profile
    copy = folder / "earlier.jsonl"
    write_jsonl(copy, [relative_to(sample, folder).to_json() for sample in samples])
    own: dict[str, Any] = {"samples": [f"{copy}:{len(samples)}"], "with_answers": True, "held_out": 0}
    if parse_share(profile.calibrate.layers) is not None:
        own["layers"] = "all"  # the sum keeps to the sites that the run's own covariance chose
    section = profile.calibrate.model_copy(update=own)
    summed = stages.calibrate(
        replace(resolved, profile=profile.model_copy(update={"calibrate": section})),
        folder / "covariance-earlier",
        progress,
        restart=restart,
        stage="calibrate earlier",
        adapter=run.folder,
    )
    if batch.covariance is not None:
        old = _check_covariance(run, batch.covariance)
    else:
        out = folder / "covariance-old"
        old = stages.calibrate(resolved, out, progress, restart=restart, adapter=run.folder, new=new)
    out = folder / "covariance"
    total = combine([old.folder, summed.folder], out, restart=restart)
    progress("combine", 1, 1, total.label)
    return out


def _own_samples(run: Run, batch: Batch) -> list[Sample]:
    """The samples that the run was trained on, which must still be those in its file."""
    from kore.config.schema import Profile
    from kore.models.token_budget import token_budget
    from kore.training.dataset import data_hash, read_training
    from kore.training.fit import fit

    samples = read_training(batch.data, image_root=batch.image_root)
    state = run.state()
    if state.profile.get("train", {}).get("on_long", "error") != "error":
        profile = Profile.model_validate(state.profile)
        samples = fit(samples, token_budget(profile.model, profile.train), profile.train.on_long).samples
    if data_hash(samples) != state.inputs["data"]["hash"]:
        raise DataError(
            f"these are no longer the samples that {run.folder} was trained on",
            where=str(batch.data),
            hint="put them back, so that what the run learned can be protected",
        )
    return [each.sample for each in samples]


def _check_covariance(run: Run, folder: Path) -> Covariance:
    from kore.nullspace.covariance import Covariance

    covariance = Covariance(folder)
    if covariance.manifest.fingerprint != run.state().inputs["covariance"]["hash"]:
        raise DataError(
            f"this is no longer the covariance that {run.folder} was trained with", where=str(folder)
        )
    return covariance
