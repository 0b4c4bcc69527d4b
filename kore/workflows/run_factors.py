"""The frozen A of a run: made once from the covariance, kept in the run, read by every process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.distributed import on_first_rank
from kore.errors import DataError
from kore.io.files import atomic_write, read_json, write_json

if TYPE_CHECKING:
    from torch import Tensor

    from kore.config.resolve import AdapterSection
    from kore.models.load import Backbone
    from kore.nullspace.covariance import Covariance

NAME = "factors.safetensors"
REPORT = "factors.json"


def identity(
    covariance: Covariance, section: AdapterSection, new: Covariance | None = None
) -> dict[str, Any]:
    """What the factors are made from: part of a run's identity."""
    found: dict[str, Any] = {
        "covariance": covariance.manifest.fingerprint,
        "adapter": section.model_dump(mode="json"),
    }
    return {**found, "new_covariance": new.manifest.fingerprint} if new else found


def check_model(covariance: Covariance, backbone: Backbone) -> None:
    """Refuse a covariance of another model, or of inputs that this one reads otherwise.

    One that `kore.calibrate` or `kore.collect_covariance` made names the loaded model, not its files.

    Raises:
        DataError: names both.
    """
    from kore.models.loaded import object_fingerprint

    if covariance.model == backbone.identity or (
        backbone.earlier is None and covariance.model == object_fingerprint(backbone.model)
    ):
        covariance.check_reads(backbone.reads)
        return
    command, earlier = f"kore calibrate --model {backbone.path}", backbone.earlier
    if earlier is not None:
        command += f" --adapter {earlier.folder}"
        if covariance.lineage.leads_to(backbone.lineage):
            raise DataError(
                f"this covariance ends before the adapter {earlier.folder}: what that taught is not in it",
                where=str(covariance.folder),
                hint=f"add it: {command} --with-answers --samples ITS-SAMPLES, then kore combine both",
            )
    raise DataError(
        f"this covariance belongs to model {covariance.model}, the model here is {backbone.identity}",
        where=str(covariance.folder),
        hint=f"make one with: {command}",
    )


def run_factors(
    folder: Path,
    backbone: Backbone,
    covariance: Covariance,
    section: AdapterSection,
    new: Covariance | None = None,
) -> dict[str, Tensor]:
    """Linear's full name -> A (r, d_in): computed by rank 0, read from the run by the other ranks and by a
    resumed run, so that all see the same bits."""
    from safetensors.torch import load_file

    on_first_rank(lambda: _write_factors(folder, backbone, covariance, section, new))
    return dict(load_file(folder / NAME))


def _write_factors(
    folder: Path,
    backbone: Backbone,
    covariance: Covariance,
    section: AdapterSection,
    new: Covariance | None,
) -> None:
    from safetensors.torch import save

    from kore.nullspace.adapter_init import build
    from kore.nullspace.factor_cache import find

    path = folder / NAME
    if path.is_file():
        return
    check_model(covariance, backbone)
    kept = find(covariance, section) if section.basis == "paper" else None
    made = kept or build(backbone, covariance, section, new=new)
    write_json(folder / REPORT, made.report)
    with atomic_write(path, "wb") as stream:
        stream.write(save({name: a.contiguous() for name, a in made.a.items()}))


def read_report(folder: Path) -> list[dict[str, Any]] | None:
    """Per site: rank, old energy in it, solver, residual and orthonormality; None without a null space."""
    path = folder / REPORT
    return list(read_json(path)) if path.is_file() else None


def copy_spectra(covariance: Covariance, folder: Path, target: Path) -> None:
    """The covariance's spectra beside the run, marked with the ranks that this run took."""
    source = covariance.folder / "spectra.json"
    if target.exists() or not source.is_file():
        return
    taken = {row["site"]: row for row in read_report(folder) or []}
    value = read_json(source)
    for site in value["sites"]:
        row = taken.get(site["name"])
        site["rank"], site["energy_left"] = (row["rank"], row["energy_left"]) if row else (None, None)
    write_json(target, value)
