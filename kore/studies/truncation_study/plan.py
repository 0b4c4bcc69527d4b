"""What a capture study is to do: checked against model, covariances, samples and suites before it starts."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.artifacts.manifest import Manifest
from kore.artifacts.run import home
from kore.errors import DataError, UsageError
from kore.evaluation.run_eval import Plan, Request, plan
from kore.io.files import hash_json
from kore.models.architectures import skeleton
from kore.models.families import family_of, language_linears
from kore.models.load import fingerprint, load_processor, model_folder, pick_device, pick_dtype, set_reading
from kore.nullspace.batches import sample_hash
from kore.nullspace.covariance import Covariance
from kore.nullspace.layer_selection import is_number
from kore.nullspace.sources import collect, parse_source
from kore.studies.truncation_study.captured_energy import Drop, Method

if TYPE_CHECKING:
    from kore.data.records import Sample

KIND = "capture"


@dataclass(frozen=True)
class CaptureRequest:
    """What is asked for.

    Attributes:
        evaluation: as for kore eval: model (its target; empty: the profile's), suites, limit, ...
        covariances: folders. samples: sources to sum here, each at every one of `counts` (none: its own).
        command: the words that asked, for the report.
    """

    evaluation: Request
    drops: Sequence[Drop]
    methods: Sequence[Method]
    covariances: Sequence[Path] = ()
    samples: Sequence[str] = ()
    counts: Sequence[int] = ()
    out: Path | None = None
    command: str = ""


@dataclass(frozen=True, eq=False)
class Inputs:
    """Old inputs to decompose for: a covariance that is there, or samples to sum.

    Attributes:
        name: in tables. source: of the samples. fingerprint: of covariance or samples.
    """

    name: str
    source: str
    fingerprint: str
    covariance: Covariance | None = None
    samples: Sequence[Sample] = ()


@dataclass(frozen=True)
class Group:
    """One decomposition: a method, and what it looks at (None: plain). Its name is that of its files."""

    name: str
    method: Method
    inputs: Inputs | None


@dataclass(frozen=True)
class Cell:
    """One decomposition with one number of components dropped."""

    group: Group
    drop: Drop

    @property
    def name(self) -> str:
        """For tables and files."""
        return f"{self.group.name}-{self.drop.text}"

    @property
    def identity(self) -> list[Any]:
        """What, beside the base, decides the weights."""
        inputs = self.group.inputs
        return [self.group.method, inputs.fingerprint if inputs else None, self.drop.text]


class CapturePlan:
    """A study, checked; `close` removes the pictures that were unpacked for it.

    Attributes:
        planned: the evaluation. inputs: what is decomposed for. shapes: linear -> (d_out, d_in).

    Args:
        on_note: told about skipped samples.

    Raises:
        UsageError: options that do not go together, components that leave nothing of a linear.
        DataError, MissingArtefact, ProfileError: what is wrong with model, covariances, samples or suites.
    """

    def __init__(self, request: CaptureRequest, on_note: Callable[[str], None] = lambda text: None) -> None:
        self.request = request
        self.on_note = on_note
        profile = request.evaluation.resolved().profile
        model = request.evaluation.target or profile.model.id
        if profile.model.quantisation != "none":
            raise UsageError(
                "the weights of a quantised base cannot be rebuilt", hint="--set model.quantisation=none"
            )
        self._check_sources()
        self._pictures = Path(tempfile.mkdtemp(prefix="kore-samples-"))
        self._remove = weakref.finalize(self, shutil.rmtree, self._pictures, ignore_errors=True)
        self.out: Path = request.out or _default_out(request, model)
        self.planned: Plan = plan(replace(request.evaluation, target=model, out=self.out / "eval"))
        assert self.planned.target is not None
        if self.planned.target.adapter is not None:
            raise UsageError(
                f"{model} is an adapter, not a base",
                hint="the study rebuilds whole weights: kore export --to merged makes a base of it",
            )
        folder = model_folder(model, download=request.evaluation.download)
        empty = skeleton(folder)
        linears = language_linears(empty, family_of(empty))
        self.shapes = {name: (x.out_features, x.in_features) for name, x in linears.items()}
        for name, shape in self.shapes.items():
            for drop in request.drops:
                drop.of(name, shape)
        processor = load_processor(folder, profile.model)
        model_print, self._reads = fingerprint(folder), set_reading(empty, processor, profile.model)
        self.inputs: list[Inputs] = [*self._from_folders(model_print), *self._from_samples()]
        names = Counter(i.name for i in self.inputs)
        if twice := [name for name, times in names.items() if times > 1]:
            raise UsageError(f"two covariances of {twice[0]}", hint="leave one of them out")
        self.manifest: Manifest = self._manifest(model, model_print)

    def close(self) -> None:
        """Remove the pictures that were unpacked for this study."""
        self._remove()

    def _check_sources(self) -> None:
        request = self.request
        if request.counts and not request.samples:
            raise UsageError(
                "--counts says how many of --samples to take", hint="name a source with --samples"
            )
        asks = [m for m in request.methods if m != "plain"]
        if asks and not (request.covariances or request.samples):
            raise UsageError(
                f"{asks[0]} needs a covariance", hint="--covariance DIR, or --samples SOURCE to sum one here"
            )

    def _from_folders(self, model: str) -> list[Inputs]:
        found = []
        for folder in self.request.covariances:
            covariance = Covariance(folder)
            if covariance.model != model:
                raise DataError(
                    f"this covariance belongs to model {covariance.model}, the model here is {model}",
                    where=str(folder),
                    hint="make one with: kore calibrate --model ...",
                )
            covariance.check_reads(self._reads)
            for name in self.shapes:
                covariance.site_of(name)
            found.append(
                Inputs(covariance.label, covariance.label, covariance.manifest.fingerprint, covariance)
            )
        return found

    def _from_samples(self) -> list[Inputs]:
        section = self.planned.profile.calibrate
        found = []
        for number, text in enumerate(self.request.samples):
            source = parse_source(text, section.count, self.planned.form)
            if self.request.counts and is_number(text.rpartition(":")[2]):
                raise UsageError(
                    f"{text} names a count of its own beside --counts", hint="name one of the two"
                )
            for count in self.request.counts or [source.count]:
                pictures = self._pictures / f"{number}-{count}"
                drawn = collect(
                    [replace(source, count=count)],
                    section.seed,
                    pictures,
                    onevision=section.onevision,
                    on_skip=self.on_note,
                )
                made = hash_json([section.with_answers, section.normalise, *map(sample_hash, drawn)])
                found.append(Inputs(f"{source.label} {len(drawn)}", source.label, made, samples=drawn))
        return found

    def _manifest(self, model: str, model_print: str) -> Manifest:
        request, section = self.planned.request, self.planned.profile
        device = pick_device(section.model.device)
        suites = {
            s.name: {k: v for k, v in s.facts.items() if k not in ("file", "warnings")}
            for s in self.planned.suites
        }
        settings = {
            "methods": list(self.request.methods),
            "components": [d.text for d in self.request.drops],
            "suites": suites,
            "limit": request.limit,
            "ids": sorted(request.ids),
            "protocol": self.planned.form.protocol,
            "style": self.planned.form.style,
            "max_new_tokens": section.eval.max_new_tokens,
            "dtype": str(pick_dtype(section.model.dtype, device)).removeprefix("torch."),
            "covariances": [i.name for i in self.inputs],
            **({"reads": self._reads} if self._reads else {}),
        }
        inputs = {"model": model_print} | {f"covariance {i.name}": i.fingerprint for i in self.inputs}
        sources = {"model": model}
        sources |= {f"covariance {i.name}": str(i.covariance.folder) for i in self.inputs if i.covariance}
        return Manifest(KIND, settings, inputs, sources)

    @property
    def groups(self) -> list[Group]:
        """The decompositions: plain looks at no covariance."""
        found = []
        for method in self.request.methods:
            if method == "plain":
                found.append(Group(method, method, None))
                continue
            for n, inputs in enumerate(self.inputs):
                found.append(Group(f"{method}-{n}-{slug(inputs.name)}", method, inputs))
        return found

    def cells(self, group: Group) -> list[Cell]:
        """The cells of one decomposition."""
        return [Cell(group, drop) for drop in self.request.drops]

    def to_json(self) -> dict[str, Any]:
        """What would be done, and the bytes that it takes on disk beside the answers."""
        cells = len(self.groups) * len(self.request.drops)
        most = {n: max(d.of(n, s) for d in self.request.drops) for n, s in self.shapes.items()}
        # q, k and v read one input, gate and up another
        widths = {}
        for name, (_, d_in) in self.shapes.items():
            block, _, stem = name.rpartition(".")
            widths[block, stem if stem in ("o_proj", "down_proj") else ""] = d_in
        to_sum = sum(i.covariance is None for i in self.inputs)
        return {
            "model": self.manifest.sources["model"],
            "linears": len(self.shapes),
            "components": [d.text for d in self.request.drops],
            "methods": list(self.request.methods),
            "covariances": [i.name for i in self.inputs],
            "suites": {s.name: len(s) for s in self.planned.suites},
            "decompositions": len(self.groups),
            "cells": cells,
            "answers": (cells + 1) * sum(map(len, self.planned.suites)),
            "bytes": {
                "directions": sum(4 * s[0] * most[n] for n, s in self.shapes.items()),
                "covariances": to_sum * sum(4 * d * (d + 1) for d in widths.values()),
            },
            "out": str(self.out),
        }


def parse_counts(text: str) -> list[int]:
    """Read ``32,256``.

    Raises:
        UsageError: not numbers of at least 1.
    """
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not is_number(part) or not int(part):
            raise UsageError(f"--counts: {part!r} is not a number of samples", hint="--counts 32,256")
    return [int(part) for part in parts]


def _default_out(request: CaptureRequest, model: str) -> Path:
    """A folder of its own for each distinct study, so that the same command finds it again."""
    asked = request.evaluation
    words = [
        model,
        asked.profile,
        [f"{key}={value}" for key, value in asked.settings.items()],
        asked.suites,
        asked.limit,
        asked.split,
        sorted(asked.ids),
        [d.text for d in request.drops],
        list(request.methods),
        [str(p) for p in request.covariances],
        list(request.samples),
        list(request.counts),
    ]
    return home() / KIND / f"{Path(model).name}-{hash_json(words)[:8]}"


def slug(text: str) -> str:
    """As part of a file's name."""
    return "".join(c if c.isalnum() or c in "-." else "-" for c in text)
