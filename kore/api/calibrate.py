"""Covariances of a loaded model on samples of what it knows, within a memory budget."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from kore.api.settings import section
from kore.config.schema import CalibrateSection
from kore.data.read import read_records
from kore.data.records import Sample
from kore.models.loaded import backbone_from
from kore.nullspace.calibrate import Calibration
from kore.nullspace.collect import evaluating
from kore.nullspace.covariance import Covariance
from kore.progress import Progress, silent

Samples = str | Path | Iterable[str | Path | Sample | Mapping[str, Any]]


def calibrate(
    model: nn.Module,
    processor: Any,
    samples: Samples,
    *,
    output: str | Path | None = None,
    batch_size: int = 8,
    with_answers: bool = False,
    memory: str = "8GiB",
    layers: str = "all",
    accumulate: str = "float64",
    label: str = "",
    restart: bool = False,
    progress: Progress = silent,
) -> Covariance:
    """Sum the covariances of a loaded language model's layers over samples of what it should keep.

    Args:
        model: a model of transformers, also quantised or inside a PeftModel (calibrated as it answers now).
        processor: the model's processor.
        samples: a file of samples (JSONL, or a JSON list), or any mix of files, `Sample` records and dicts in
            LLaVA's form (``conversations``) or OpenAI's (``messages``).
        output: where to keep the covariance, resumed if it is there in part; by default a temporary folder
            that goes with the result.
        batch_size: samples per forward pass.
        with_answers: sum the answers' tokens too.
        memory: budget for sums and cached hidden states.
        layers: "all", a range "0-3" or a list "0,5,7".
        accumulate: type of the running sums, float64 or float32.
        label: what the samples are, for people.
        restart: discard what is in `output`.

    Raises:
        UsageError: an argument that is not valid, no sample, or memory or disk that do not suffice.
        DataError: a bad sample, with its place; a model whose layers cannot be run alone.
    """
    settings = section(
        CalibrateSection,
        batch=batch_size,
        with_answers=with_answers,
        memory=memory,
        layers=layers,
        accumulate=accumulate,
    )
    found = list(read_samples(samples))
    folder = Path(output or tempfile.mkdtemp(prefix="kore-covariance-"))
    try:
        with evaluating(model):
            job = Calibration(backbone_from(model, processor), found, settings, label=label)
            made = job.run(folder, restart=restart, progress=progress)
    except BaseException:
        if output is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    if output is None:
        made.remove_with_object()
    return made


def read_samples(samples: Samples) -> Iterator[Sample]:
    """Samples from files, records and dicts, in order; a dict without an id is named by its place.

    Raises:
        DataError: a bad sample, with its file and line or its place.
    """
    if isinstance(samples, (str, Path)):
        samples = [samples]
    for index, value in enumerate(samples):
        if isinstance(value, (str, Path)):
            yield from read_records(Sample, value)
        elif isinstance(value, Sample):
            yield value
        else:
            yield Sample.from_json({"id": str(index), **value}, f"samples[{index}]")
