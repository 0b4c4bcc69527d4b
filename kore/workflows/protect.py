"""A covariance that protects an earlier run's batch beside the old samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.artifacts.run import Run
from kore.errors import DataError
from kore.io.jsonl import write_jsonl
from kore.workflows import stages
from kore.workflows.sequential import Batch, batches, find_run

if TYPE_CHECKING:
    from kore.config.resolve import Resolved
    from kore.data.records import Sample
    from kore.nullspace.covariance import Covariance
    from kore.progress import Progress


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
