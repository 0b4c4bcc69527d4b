"""Runs, adapters, evaluations and exports: what created them and what came out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kore.artifacts.manifest import NAME, read_manifest
from kore.artifacts.run import ADAPTER, FACTS, Run
from kore.io.files import read_json
from kore_cli.output import Output
from kore_cli.render.evaluation import print_summary
from kore_cli.render.runs import summary_files

# what the numbers of a run's result are, where the name alone is ambiguous
RESULT_NAMES = {
    "loss": "loss, mean of the last 20 steps",
    "best": "best checkpoint, by probe score",
    "scores": "probe scores",
}
ADAPTER_KEYS = ("r", "lora_alpha", "peft_type", "base_model_name_or_path", "target_modules")


def show_result(path: Path, kind: str, output: Output) -> None:
    """Print a folder's state and numbers, from its run.json, manifest or adapter files."""
    value = {"v": 1, "folder": str(path), "kind": kind, **_facts(path, kind)}
    if not output.human:
        output.record(value)
        return
    summary = value.pop("summary", None)
    if summary is not None:
        value = {k: v for k, v in value.items() if k not in ("settings", "inputs")}
    elif kind == "run" and (files := summary_files(path)):
        summary = read_json(files[-1])
    if result := value.get("result"):
        value["result"] = {RESULT_NAMES.get(k, k): v for k, v in result.items()}
    output.facts(value)
    if summary is not None:
        output.line("")
        print_summary(output, summary)


def _facts(path: Path, kind: str) -> dict[str, Any]:
    if kind == "run":
        state = Run(path).state()
        return {
            "status": "dead" if state.dead else state.status,
            "method": state.method,
            "command": " ".join(state.command),
            "message": state.message,
            "inputs": {k: v.get("path") or v.get("hash") for k, v in state.inputs.items()},
            "result": state.result,
        }
    facts: dict[str, Any] = {}
    if (path / NAME).exists():
        manifest = read_manifest(path)
        facts = {
            "status": manifest.status,
            "fingerprint": manifest.fingerprint,
            "settings": manifest.settings,
            "inputs": manifest.inputs,
            **manifest.facts,
        }
    for name in (FACTS, ADAPTER, "summary.json", "result.json"):
        if (path / name).exists():
            value = read_json(path / name)
            facts[name.removesuffix(".json")] = _shortened(value) if name == ADAPTER else value
    return facts


def _shortened(config: Any) -> Any:
    return {k: config[k] for k in ADAPTER_KEYS if k in config} if isinstance(config, dict) else config
