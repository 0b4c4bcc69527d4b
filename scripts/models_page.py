"""Write docs/models.md from the families that tests/models take through every stage.

python -m scripts.models_page [--check]     # --check only says whether it is current
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from kore.models.families import REFUSED, family_of, model_class
from kore.models.linear_table import LinearRow, linear_rows
from tests.models.families import CASES, Case

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
HEAD = """# Models

This page is written by `scripts/models_page.py` from the families that `tests/models` takes through
calibration, training (kore and lora), evaluation, chat and export, each as a tiny random model of its
real configuration and processor classes.

KORE takes what `AutoModelForCausalLM` or `AutoModelForImageTextToText` loads. Decoder layers, linears
and the projector are found in the module tree and checked by a forward pass, so a family that is not
listed may work, too: `kore show --model MODEL` prints which linears are adapted and which are skipped,
with the reason. The output head and other linears outside the decoder layers are never adapted.

- *Calibration*: layer by layer where a decoder layer can be run alone (this is what `--offload` needs),
  else by whole forward passes.
- *Image*: what the chat template writes for an image; text-only models have none. Their items, old
  samples and questions are used without images.
- *Image size*: `model.max_pixels` where the processor resizes freely.
- *Without torchvision*: what of the real processor is left out where torchvision is not installed, as in
  the tests. Images and text are not affected. The processor of Mistral 3 needs torchvision; its test
  replaces the one function that it takes from there.

| family | `model_type` | adapted | skipped | calibration | image | image size | without torchvision |
|---|---|---|---|---|---|---|---|
"""


def row(case: Case) -> str:
    """A family's line of the table."""
    _, config = case.parts()
    with torch.device("meta"):
        model = model_class(config).from_config(config)
    family = family_of(model)
    prefix = f"{family.layers}.*."
    inside = [r for r in linear_rows(model, family) if r.pattern.startswith(prefix)]
    cells = [
        case.title,
        f"`{case.model_type}`",
        _names(prefix, [r for r in inside if not r.skipped]),
        "; ".join(
            f"{_names(prefix, [r for r in inside if r.skipped == reason])}: {reason}"
            for reason in dict.fromkeys(r.skipped for r in inside if r.skipped)
        ),
        "whole passes" if case.whole else "layer by layer",
        f"`{case.image.strip()}`" if case.image else "",
        case.pixels,
        case.stand_in and f"no {case.stand_in}",
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") or "-" for cell in cells) + " |"


def _names(prefix: str, rows: list[LinearRow]) -> str:
    """Names inside a layer, those of one module together."""
    modules: dict[str, list[str]] = {}
    for each in rows:
        module, _, stem = each.pattern.removeprefix(prefix).rpartition(".")
        if stem not in modules.setdefault(module, []):
            modules[module].append(stem)
    return ", ".join(
        f"`{module}` ({', '.join(stems)})" if module else ", ".join(stems)
        for module, stems in modules.items()
    )


def page() -> str:
    """The whole text of docs/models.md."""
    refused = [f"\n`{name}` is refused: {reason}.\n" for name, reason in REFUSED.items()]
    return HEAD + "\n".join(map(row, CASES.values())) + "\n" + "".join(refused)


if __name__ == "__main__":
    if "--check" not in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page():
        sys.exit("docs/models.md is not current: python -m scripts.models_page")
