"""The model card of an export: what it is, from which base, what was taught, how it scored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kore.io.files import atomic_write
from kore.models.load import EMBEDDED, embedded_base

_ITEMS = 40  # rows of the table of items

_USE = {
    "peft": """```python
from peft import PeftModel
from transformers import {auto}

base = {auto}.from_pretrained("{base}")
model = PeftModel.from_pretrained(base, ".")
```""",
    "merged": """```python
from transformers import {auto}, {reader}

model = {auto}.from_pretrained(".")
processor = {reader}.from_pretrained(".")
```""",
    "vllm": """```sh
vllm serve {served} --enable-lora --max-lora-rank {rank} --lora-modules knowledge=./adapter
```

`knowledge` is the model's name in requests. To make sure that the server applies it:

```sh
kore check-server http://localhost:8000/v1 --adapter knowledge --export .
```""",
}


def write_card(folder: Path, form: str, facts: Mapping[str, Any]) -> None:
    """Write README.md.

    Args:
        facts: kore.json of the adapter, and as far as known ``name``, ``items`` (title, source, date),
            ``covariance`` (label, fingerprint), ``scores`` (rows), ``check``, ``served`` (what vLLM serves),
            ``text_only``.
    """
    base = facts.get("base_path") or facts.get("model")
    use = _USE[form]
    bare = bool(facts.get("text_only"))
    names = {
        "auto": "AutoModelForCausalLM" if bare else "AutoModelForImageTextToText",
        "reader": "AutoTokenizer" if bare else "AutoProcessor",
    }
    if base == EMBEDDED or Path(str(base)) == embedded_base():
        base = EMBEDDED  # where it lies is this machine's own
        use = use.replace('"{base}"', "embedded_base()").replace(
            "from peft", "from kore.models.load import embedded_base\nfrom peft", 1
        )
    lines = [
        "---",
        "library_name: " + ("transformers" if form == "merged" else "peft"),
        f"pipeline_tag: {'text-generation' if bare else 'image-text-to-text'}",
        f"base_model: {base}",
        "tags: [kore, knowledge-injection]",
        "---",
        "",
        f"# {facts.get('name') or 'Injected knowledge'}",
        "",
        f"Made with KORE's method `{facts.get('method', 'kore')}` from the base `{base}` "
        f"(fingerprint `{facts.get('base')}`).",
        "",
        "## Use",
        "",
        use.format(base=base, rank=facts.get("rank"), served=facts.get("served"), **names),
        "",
        *_taught(facts),
        *_kept(facts),
        *_scored(facts),
        *_checked(facts.get("check")),
    ]
    with atomic_write(folder / "README.md") as stream:
        stream.write("\n".join(lines).rstrip() + "\n")


def _taught(facts: Mapping[str, Any]) -> list[str]:
    items = list(facts.get("items") or [])
    data = facts.get("data") or {}
    lines = ["## What was taught", ""]
    if data.get("samples"):
        lines += [f"{data['samples']:,} training samples.", ""]
    if not items:
        return [*lines, "The items themselves were not found beside the training data.", ""]
    lines += [f"{len(items):,} items:", "", "| item | source | date |", "|---|---|---|"]
    lines += [
        f"| {_cell(i.get('title'))} | {_cell(i.get('source'))} | {_cell(i.get('date'))} |"
        for i in items[:_ITEMS]
    ]
    if len(items) > _ITEMS:
        lines.append(f"| and {len(items) - _ITEMS:,} more | | |")
    return [*lines, ""]


def _kept(facts: Mapping[str, Any]) -> list[str]:
    covariance = facts.get("covariance")
    if not covariance:
        return ["## What was protected", "", "Nothing: this method uses no covariance.", ""]
    if isinstance(covariance, str):
        covariance = {"fingerprint": covariance}
    label = covariance.get("label", "a covariance")
    return ["## What was protected", "", f"{label} (covariance `{covariance.get('fingerprint')}`).", ""]


def _scored(facts: Mapping[str, Any]) -> list[str]:
    rows = list(facts.get("scores") or [])
    if not rows:
        return ["## Scores", "", "Not evaluated yet.", ""]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["## Scores", "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(c)) for c in columns) + " |" for row in rows]
    return [*lines, ""]


def _checked(check: Mapping[str, Any] | None) -> list[str]:
    if not check:
        return []
    return [
        "## Check",
        "",
        f"On {check['prompts']} prompts the logits differ from the adapter's by at most "
        f"{check['error']:.2e}, where the adapter moves the base's by up to {check['moved']:.2e}; "
        f"the most likely token agrees at "
        f"{check['agree']:.1%} of the positions.",
        "",
    ]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    text = f"{value:.2f}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
