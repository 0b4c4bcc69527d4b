"""Configurations of published architectures: what they count to, without their weights.

Each folder holds a config.json as transformers reads it; nothing else is needed to build the model on
the meta device.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.errors import DataError, MissingArtefact
from kore.models.families import family_of, model_class
from kore.models.linear_table import LinearRow, linear_rows
from kore.models.load_errors import reason

if TYPE_CHECKING:
    from kore.config.resolve import ModelSection


def names() -> list[str]:
    """The architectures that ship with KORE."""
    return sorted(p.parent.name for p in Path(__file__).parent.glob("*/config.json"))


def folder_of(section: ModelSection) -> Path:
    """The folder whose config.json describes the profile's model: the model's own if it is here.

    Raises:
        MissingArtefact: neither a shipped architecture nor a model that is here.
    """
    from kore.models.load import model_folder

    try:
        return model_folder(section.id)
    except MissingArtefact:
        if section.architecture is None:
            raise
    shipped = Path(__file__).parent / section.architecture
    folder = shipped if shipped.is_dir() else Path(section.architecture)
    if not (folder / "config.json").is_file():
        raise MissingArtefact(
            f"no such architecture: {section.architecture}", hint=f"KORE ships {', '.join(names())}"
        )
    return folder


def linears_of(folder: Path) -> list[LinearRow]:
    """Every linear of a folder's language model, adapted or not, by its configuration alone."""
    model = skeleton(folder)
    return linear_rows(model, family_of(model))


def skeleton(folder: Path) -> Any:
    """The model of a configuration on the meta device: every name and shape, no memory.

    Raises:
        DataError: neither a causal language model nor an image-text-to-text model.
    """
    import torch
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        with torch.device("meta"):
            return model_class(config).from_config(config)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"no usable model configuration: {reason(error)}", where=str(folder)) from error
