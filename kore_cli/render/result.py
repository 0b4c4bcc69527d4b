"""Runs, adapters, evaluations and other folders: what made them and what came out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kore_cli.output import Output


def show_result(path: Path, kind: str, output: Output) -> None:
    """Print a folder's state and numbers, from its run.json, manifest or adapter files."""
    value = {"v": 1, "folder": str(path), "kind": kind, **_facts(path, kind)}
    output.result(
        value, "\n".join(f"{k}: {_plain(v)}" for k, v in value.items() if k != "v" and v is not None)
    )


def _facts(path: Path, kind: str) -> dict[str, Any]:
    from kore.artifacts.manifest import NAME, read_manifest
    from kore.artifacts.run import ADAPTER, FACTS
    from kore.io.files import read_json

    if kind == "run":
        from kore.artifacts.run import Run

        state = Run(path).state()
        return {
            "status": "dead" if state.dead else state.status,
            "method": state.method,
            "command": " ".join(state.command),
            "message": state.message,
            "inputs": {k: v.get("path") or v.get("hash") for k, v in state.inputs.items()},
            "result": state.result,
        }
    found: dict[str, Any] = {}
    if (path / NAME).exists():
        manifest = read_manifest(path)
        found = {
            "status": manifest.status,
            "fingerprint": manifest.fingerprint,
            "settings": manifest.settings,
            "inputs": manifest.inputs,
            **manifest.facts,
        }
    for name in (FACTS, ADAPTER, "summary.json", "result.json"):
        if (path / name).exists():
            value = read_json(path / name)
            found[name.removesuffix(".json")] = _short(value) if name == ADAPTER else value
    return found


def _short(config: Any) -> Any:
    keys = ("r", "lora_alpha", "peft_type", "base_model_name_or_path", "target_modules")
    return {k: config[k] for k in keys if k in config} if isinstance(config, dict) else config


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return "".join(f"\n  {k}: {_inner(v)}" for k, v in value.items() if v not in (None, {}, []))
    return str(value)


def _inner(value: object) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
