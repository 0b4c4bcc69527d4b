"""The frozen A of an adapter kept beside its covariance, so that it can be made where the model does not fit.

`kore calibrate --offload --factors` makes it with weights that come from disk one linear at a time;
`kore train` with the same covariance and adapter settings finds it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kore.io.files import atomic_write, hash_json, read_json, write_json
from kore.nullspace.adapter_init import AdapterFactors, WeightSource, build
from kore.nullspace.covariance import Covariance
from kore.progress import Progress, silent

if TYPE_CHECKING:
    from kore.config.resolve import AdapterSection


def place(covariance: Covariance, section: AdapterSection) -> Path:
    """The file for an adapter of these settings."""
    settings = hash_json([covariance.manifest.fingerprint, section.model_dump(mode="json")])
    return covariance.folder / f"factors-{settings[:8]}.safetensors"


def keep(
    source: WeightSource,
    covariance: Covariance,
    section: AdapterSection,
    *,
    progress: Progress = silent,
) -> Path:
    """Make the frozen A of every linear, unless it is there already; returns its file.

    Args:
        source: W0 of a linear by its full name.
    """
    from safetensors.torch import save_file

    path = place(covariance, section)
    if not path.exists():
        made = build(source, covariance, section, progress=progress)
        write_json(path.with_suffix(".json"), made.report)
        with atomic_write(path, "wb") as stream:
            save_file(made.a, stream.name)
    return path


def find(covariance: Covariance, section: AdapterSection) -> AdapterFactors | None:
    """What `keep` made of the same covariance and settings, if it did."""
    from safetensors.torch import load_file

    path = place(covariance, section)
    if not path.exists():
        return None
    return AdapterFactors(a=load_file(path), report=list(read_json(path.with_suffix(".json"))))
