"""The result of a run: the adapter's folder, and what the run achieved."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.distributed import on_first_rank
from kore.errors import DataError, UsageError
from kore.io.files import read_json, write_json
from kore.training import checkpoint_io as weights

if TYPE_CHECKING:
    from kore.artifacts.run import Run
    from kore.methods.base import Method
    from kore.models.load import Backbone


@dataclass(frozen=True)
class TrainResult:
    """What a finished run has to say.

    Attributes:
        steps: optimiser steps.
        loss: mean over the last 20 steps.
        seconds: of this process; earlier parts of a resumed run not included.
        trainable: parameters trained.
        samples: samples in one pass, extra ones of the method included.
        adapter: the saved result.
        best: step, path and probe scores of the best checkpoint.
        returned: the step of the checkpoint that was taken instead of the last one.
    """

    steps: int
    loss: float
    seconds: float
    trainable: int
    samples: int
    adapter: Path
    best: dict[str, Any] | None = None
    scores: dict[str, float] = field(default_factory=dict)
    returned: int | None = None


def finished(run: Run, fingerprint: str) -> TrainResult | None:
    """The result of a run that has ended.

    Raises:
        UsageError: it has other settings or data.
    """
    path = run.adapter / "result.json"
    if not path.is_file():
        return None
    value = read_json(path)
    if value.get("fingerprint") != fingerprint:
        raise UsageError(
            f"{run.adapter} holds an adapter of other settings or data",
            hint="choose another folder with -o, or discard it with --restart",
        )
    return TrainResult(**{**value["result"], "adapter": run.adapter})


def save(method: Method, backbone: Backbone, run: Run, facts: dict[str, Any], result: TrainResult) -> None:
    """Write ``adapter/``; a rerun finds it and its result."""
    with weights.whole(weights.kept(backbone.model)):
        on_first_rank(lambda: _write_adapter(method, backbone, run, facts, result))


def _write_adapter(
    method: Method, backbone: Backbone, run: Run, facts: dict[str, Any], result: TrainResult
) -> None:
    """Write it under a temporary name, then put it in place."""
    temporary = run.folder / ".adapter.tmp"  # one name, so that what a kill left is replaced
    shutil.rmtree(temporary, ignore_errors=True)
    method.save(backbone.model, temporary, {"base": backbone.fingerprint, "method": method.name, **facts})
    if backbone.earlier is not None:
        backbone.earlier.join(temporary)
    value = {**asdict(result), "adapter": "adapter"}
    write_json(temporary / "result.json", {"fingerprint": facts["train"], "result": value})
    if run.adapter.exists():
        shutil.rmtree(run.adapter)
    try:
        temporary.rename(run.adapter)
    except OSError as error:
        raise DataError(f"cannot write {run.adapter}: {error.strerror}") from error
