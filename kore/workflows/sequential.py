"""Earlier runs of a chain: their adapters and what each of them left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kore.artifacts.run import ADAPTER, Run, run_at
from kore.errors import MissingArtefact, UsageError

if TYPE_CHECKING:
    from kore.adapters.stacked import Earlier
    from kore.methods.base import Method

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
