"""Reload an export with transformers and PEFT alone and compare its answers with its canaries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kore.artifacts.canaries import Canary, read_canaries
from kore.artifacts.manifest import read_manifest
from kore.artifacts.model_folder import model_folder
from kore.errors import DataError
from kore.io.files import read_json


@dataclass(frozen=True)
class ExportCheck:
    """How an export answers its canaries.

    Attributes:
        wrong: canaries that it answers otherwise, with its answer.
    """

    form: str
    canaries: int
    differ: int
    wrong: list[tuple[Canary, str]]

    def to_json(self) -> dict[str, object]:
        """A plain object."""
        wrong = [{"id": c.id, "text": c.text, "expected": c.adapter.text, "answer": a} for c, a in self.wrong]
        return {"form": self.form, "canaries": self.canaries, "differ": self.differ, "wrong": wrong}


def check_export(folder: Path, model: str | None = None) -> ExportCheck:
    """Answer every canary of an export again.

    Args:
        model: the base, where it lies elsewhere than the export says.

    Raises:
        MissingArtefact: no export, no canaries, or no base here. DataError: it does not load.
    """
    from kore.adapters.canary_answers import stock_answers

    form = str(read_manifest(folder, kind="export", made_by="kore export").settings["form"])
    canaries = read_canaries(folder)
    adapter = {"peft": folder, "vllm": folder / "adapter"}.get(form)
    base = folder
    if adapter is not None:
        named = str(read_json(adapter / "adapter_config.json")["base_model_name_or_path"])
        own = folder / "base"
        base = own if own.is_dir() else model_folder(model or named)
    answers = stock_answers(canaries, folder, base, adapter)
    wrong = [(c, a.text) for c, a in zip(canaries, answers, strict=True) if a.text != c.adapter.text]
    return ExportCheck(form, len(canaries), sum(c.differs for c in canaries), wrong)


def refuse_wrong(check: ExportCheck, folder: Path) -> None:
    """Raise unless every canary is answered as it was when the export was written.

    Raises:
        DataError: names the first prompts that are answered otherwise.
    """
    if check.wrong:
        texts = "; ".join(f"{c.text!r}: {a!r}, not {c.adapter.text!r}" for c, a in check.wrong[:3])
        raise DataError(
            f"{len(check.wrong)} of {check.canaries} canaries are answered otherwise: {texts}",
            where=str(folder),
            hint="the files were changed, the base is another, or a library renders prompts differently",
        )
