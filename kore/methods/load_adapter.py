"""Put any saved adapter on a backbone: a LoRA, or what one of the other methods saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kore.adapters.lora import check_base, load_lora, read_facts
from kore.methods.registry import make_method
from kore.models.load_errors import loading

if TYPE_CHECKING:
    from kore.models.load import Backbone


def load_adapter(backbone: Backbone, folder: Path) -> None:
    """Put a saved adapter on the backbone, strictly; nothing of it is trainable.

    Raises:
        DataError: trained on another base, broken, or with keys missing from or unknown to the model.
        MissingArtefact: no adapter, or one without weights.
    """
    form = read_facts(folder).get("format", "peft")
    if form == "peft":
        load_lora(backbone, folder)
        return
    check_base(backbone, folder)
    with loading("adapter", folder):
        make_method(form).load(backbone, folder)
