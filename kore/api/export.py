"""An adapter for other tools: a PEFT folder, merged weights, or vLLM's form."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kore.workflows.export_run import export_run


@dataclass(frozen=True)
class Export:
    """What was written, and how it was checked.

    Attributes:
        folder: the result.
        form: peft, merged or vllm.
        prompts: prompts that the check compared the export on.
        error: largest difference of its logits from the adapter's.
        moved: largest difference that the adapter makes to the base's logits.
        facts: everything that was written about it.
    """

    folder: Path
    form: str
    prompts: int
    error: float
    moved: float
    facts: dict[str, Any] = field(default_factory=dict)


def export(
    run: str | Path,
    form: Literal["peft", "merged", "vllm"] = "peft",
    output: str | Path | None = None,
    *,
    model: str | None = None,
    dtype: str = "float32",
    restart: bool = False,
) -> Export:
    """Write a run's adapter (or an adapter folder) for other tools, checked, with a model card.

    Args:
        output: default: beside the run, ``NAME-FORM``.
        model: the base, where the adapter does not name it.
        dtype: type of merged weights.

    Raises:
        MissingArtefact: no adapter, or no base. DataError: the export answers otherwise than the adapter.
    """
    target = Path(output) if output else None
    value = export_run(Path(run), form, target, model=model, dtype=dtype, restart=restart)
    found = value["check"]
    prompts, error, moved = found["prompts"], found["error"], found["moved"]
    return Export(Path(value["out"]), str(value["form"]), prompts, error, moved, value)
