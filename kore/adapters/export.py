"""An adapter for other tools: a stock PEFT folder, a merged model, or what vLLM serves.

Each export is checked against the adapter it came from before it is called finished, and carries a
model card.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from kore.adapters.canary_answers import make_canaries
from kore.adapters.export_check import Reference
from kore.adapters.lora import read_facts
from kore.adapters.lora_state import CONFIG, WEIGHTS, read_config, read_low_rank
from kore.adapters.merge import merge
from kore.adapters.model_card import write_card
from kore.adapters.vllm import write_vllm
from kore.artifacts.canaries import Canary, write_canaries
from kore.artifacts.manifest import Manifest, claimed
from kore.artifacts.model_folder import model_folder, model_name
from kore.errors import DataError, UsageError
from kore.io.files import hash_folder, read_json, write_json
from kore.models.architectures import skeleton
from kore.models.checkpoint import read_tensors
from kore.models.generate import Prompt
from kore.models.lineage import adapter_fingerprint
from kore.models.load_errors import loading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kore.config.resolve import ModelSection
    from kore.models.load import Backbone

KIND = "export"
Form = Literal["peft", "merged", "vllm"]
DTYPES = ("auto", "float32", "bfloat16", "float16")

_TEXTS = (
    "What is shown in the image?",
    "What is the capital of France?",
    "Answer with one word: which colour is the sky?",
    "Name three countries.",
)


def export(
    adapter: Path,
    form: Form,
    out: Path,
    section: ModelSection,
    *,
    prompts: Sequence[Prompt] = (),
    candidates: Sequence[Prompt] = (),
    card: Mapping[str, Any] | None = None,
    dtype: str = "auto",
    restart: bool = False,
) -> dict[str, Any]:
    """Write the export of an adapter folder.

    Args:
        section: the base model.
        prompts: to compare logits on; a few of KORE's own if none are given.
        candidates: prompts of which the canaries are chosen; default: `prompts`.
        card: facts for the model card: name, items, covariance, scores.
        dtype: type in which merged weights are written; auto keeps the base's.

    Returns:
        ``{out, form, check, ...}``.

    Raises:
        DataError: keys missing or unknown, a method whose result cannot be exported so, another base,
            or a merge that does not answer as the adapter does (with the numbers).
        UsageError: no such type.
    """
    facts = read_facts(adapter)
    if facts.get("format", "peft") != "peft":
        raise DataError(
            f"the result of {facts.get('method')} is not a low-rank adapter: {facts.get('format')}",
            where=str(adapter),
            hint="it can be evaluated and asked with KORE alone",
        )
    if dtype not in DTYPES:
        raise UsageError(f"no such type: {dtype}", hint=f"one of {', '.join(DTYPES)}")
    read_config(adapter)
    settings = {"form": form, "dtype": dtype if form == "merged" else None}
    sums = {"adapter": adapter_fingerprint(adapter), "model": str(facts.get("base"))}
    manifest = Manifest(KIND, settings, sums, {"adapter": str(adapter.resolve())})
    with claimed(out, manifest, restart=restart) as state:
        if state == "done":
            return {"out": str(out), "form": form, **read_json(out / "manifest.json")["facts"]}
        check_keys(adapter, model_folder(section.id))
        own = bool(prompts)
        prompts = list(prompts) or [Prompt.ask(text) for text in _TEXTS]
        canaries: list[Canary] = []

        def inspect(backbone: Backbone) -> None:
            canaries.extend(make_canaries(backbone, list(candidates) or prompts, out))

        reference = Reference.measure(adapter, section, prompts, inspect)
        write_canaries(canaries, out)
        if form == "peft":
            made = _peft(adapter, out, reference)
        elif form == "merged":
            made = _merged(adapter, out, reference, dtype)
        else:
            made = write_vllm(adapter, out, reference)
        made["canaries"] = {
            "count": len(canaries),
            "differ": sum(c.differs for c in canaries),
            "general": not (candidates or own),
        }
        about = {"base_path": model_name(reference.path), "text_only": reference.text_only}
        write_card(out, form, {**facts, **(card or {}), **about, **made})
        manifest.finished(**made).write(out)
        return {"out": str(out), "form": form, **made}


def check_keys(adapter: Path, base: Path) -> None:
    """Refuse an adapter folder whose keys are not exactly those that its configuration implies.

    Raises:
        DataError: the first missing or unexpected key.
    """
    from peft import LoraConfig, get_peft_model
    from peft.utils import get_peft_model_state_dict

    with loading("adapter", adapter):
        model = get_peft_model(skeleton(base), LoraConfig.from_pretrained(str(adapter)))
        expected = get_peft_model_state_dict(model, save_embedding_layers=False)
    weights = read_tensors(adapter / WEIGHTS)
    for what, keys in (
        ("missing", expected.keys() - weights.keys()),
        ("unexpected", weights.keys() - expected.keys()),
    ):
        if keys:
            raise DataError(f"{len(keys)} {what} keys, first {min(keys)}", where=str(adapter / WEIGHTS))
    for key, value in weights.items():
        if value.shape != expected[key].shape:
            raise DataError(
                f"{key} is {tuple(value.shape)}, not {tuple(expected[key].shape)}", where=str(adapter)
            )


def _peft(adapter: Path, out: Path, reference: Reference) -> dict[str, Any]:
    """The folder as it is, checked by the stock loader."""
    shutil.copyfile(adapter / WEIGHTS, out / WEIGHTS)
    config = read_json(adapter / CONFIG)
    config["base_model_name_or_path"] = model_name(reference.path)
    config["inference_mode"] = True
    write_json(out / CONFIG, config)
    check = reference.check("the folder, loaded by PEFT,", reference.path, out)
    return {"check": check.__dict__, "rank": config["r"]}


def _merged(adapter: Path, out: Path, reference: Reference, dtype: str) -> dict[str, Any]:
    """W0 + B A, read back and compared."""
    lineage = reference.lineage
    for earlier in read_facts(adapter).get("chain") or ():
        lineage = lineage.then(str(earlier))
    written = merge(
        reference.path,
        out,
        read_low_rank(adapter),
        dtype=None if dtype == "auto" else getattr(torch, dtype),
        select_layer=reference.select_layer,
    )
    lineage.then(adapter_fingerprint(adapter)).write(out)
    check = reference.check(f"the merged model in {written}", out)
    return {"check": check.__dict__, "weights": hash_folder(out, "*.safetensors"), "dtype": written}
