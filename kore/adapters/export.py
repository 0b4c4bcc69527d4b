"""An adapter for other tools: a stock PEFT folder, a merged model, or what vLLM serves.

Each export is checked against the adapter it came from before it is called finished, and carries a
model card.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from kore.adapters.lineage import adapter_fingerprint, read_lineage
from kore.adapters.lora import adapter_off, load_adapter, read_facts
from kore.adapters.lora_state import CONFIG, WEIGHTS
from kore.adapters.model_card import write_card
from kore.artifacts.manifest import Manifest, claimed
from kore.config.resolve import ModelSection
from kore.errors import DataError, UsageError
from kore.io.files import hash_folder, read_json, write_json
from kore.models.generate import Prompt
from kore.models.load import Backbone, load
from kore.models.processing import Encoder, collate
from kore.models.special_tokens import is_text_only

if TYPE_CHECKING:
    from collections.abc import Mapping

KIND = "export"
Form = Literal["peft", "merged", "vllm"]
DTYPES = ("float32", "bfloat16", "float16")
BAD_MERGE = 0.1  # of what the adapter changes: more than this lost or added is no merge

_TEXTS = (
    "What is shown in the image?",
    "What is the capital of France?",
    "Answer with one word: which colour is the sky?",
    "Name three countries.",
)


@dataclass(frozen=True)
class Check:
    """How well an export answers as the adapter does.

    Attributes:
        prompts: how many were compared.
        moved: largest |logit| change that the adapter makes to the base.
        error: largest |logit| difference between the export and the adapter.
        relative: norm of that difference over the norm of the change; infinite for 0 / 0 is 0.
        agree: share of positions whose most likely token is the same.
    """

    prompts: int
    moved: float
    error: float
    relative: float
    agree: float


def export(
    adapter: Path,
    form: Form,
    out: Path,
    section: ModelSection,
    *,
    prompts: Sequence[Prompt] = (),
    card: Mapping[str, Any] | None = None,
    dtype: str = "float32",
    restart: bool = False,
) -> dict[str, Any]:
    """Write the export of an adapter folder.

    Args:
        section: the base model.
        prompts: to compare answers on; a few of KORE's own if none are given.
        card: facts for the model card: name, items, covariance, scores.
        dtype: type in which merged weights are written.

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
            f"the result of {facts.get('method')} is no low-rank adapter: {facts.get('format')}",
            where=str(adapter),
            hint="it can be evaluated and asked with KORE alone",
        )
    if dtype not in DTYPES:
        raise UsageError(f"no such type: {dtype}", hint=f"one of {', '.join(DTYPES)}")
    settings = {"form": form, "dtype": dtype if form == "merged" else None}
    sums = {"adapter": adapter_fingerprint(adapter), "model": str(facts.get("base"))}
    manifest = Manifest(KIND, settings, sums, {"adapter": str(adapter.resolve())})
    with claimed(out, manifest, restart=restart) as state:
        if state == "done":
            return {"out": str(out), "form": form, **read_json(out / "manifest.json")["facts"]}
        backbone = load(section.model_copy(update={"dtype": "float32"}))
        check_keys(adapter, backbone)
        load_adapter(backbone, adapter)
        asked = list(prompts) or [Prompt.ask(text) for text in _TEXTS]
        with_adapter = logits(backbone, asked)
        with adapter_off(backbone.model):
            base = logits(backbone, asked)
        made: dict[str, Any]
        if form == "peft":
            made = _peft(adapter, out, backbone, asked, with_adapter, base)
        elif form == "merged":
            made = _merged(adapter, out, backbone, section, asked, with_adapter, base, dtype)
        else:
            from kore.adapters.vllm import write_vllm

            made = write_vllm(adapter, out, backbone, asked, with_adapter, base)
        about = {"base_path": str(backbone.path), "text_only": is_text_only(backbone.processor)}
        write_card(out, form, {**facts, **(card or {}), **about, **made})
        manifest.finished(**made).write(out)
        return {"out": str(out), "form": form, **made}


def check_keys(adapter: Path, backbone: Backbone) -> None:
    """Refuse an adapter folder whose keys are not exactly those that its configuration implies.

    Raises:
        DataError: the first missing or unexpected key.
    """
    from peft import LoraConfig, get_peft_model
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import load_file

    from kore.models.architectures import skeleton

    model = get_peft_model(skeleton(backbone.path), LoraConfig.from_pretrained(str(adapter)))
    expected = get_peft_model_state_dict(model, save_embedding_layers=False)
    weights = load_file(adapter / WEIGHTS)
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


@torch.inference_mode()
def logits(backbone: Backbone, prompts: Sequence[Prompt]) -> Tensor:
    """Logits of every position of every prompt, one prompt at a time, (positions, vocabulary) float32."""
    encoder = Encoder(backbone.processor)
    found = []
    for prompt in prompts:
        inputs = encoder.prompt(prompt.turns, prompt.images)
        batch = {k: v.to(backbone.device) for k, v in collate([inputs], encoder.pad_id).items()}
        found.append(backbone.model(**batch).logits[0].float().cpu())
    return torch.cat(found)


def compare(made: Tensor, adapter: Tensor, base: Tensor, prompts: int) -> Check:
    """How far `made` is from `adapter`, measured by how far `adapter` is from `base`."""
    error, moved = made - adapter, adapter - base
    size = float(moved.norm())
    lost = float(error.norm())
    relative = lost / size if size else (0.0 if lost <= 1e-4 * float(base.norm()) else float("inf"))
    agree = float((made.argmax(-1) == adapter.argmax(-1)).float().mean())
    return Check(prompts, float(moved.abs().max()), float(error.abs().max()), relative, agree)


def refuse_bad(check: Check, what: str) -> None:
    """Raise if an export does not answer as its adapter does.

    Raises:
        DataError: with the numbers.
    """
    if not check.relative <= BAD_MERGE:
        raise DataError(
            f"{what} does not answer as the adapter does: its logits differ by up to {check.error:.3g} where "
            f"the adapter changes them by up to {check.moved:.3g} ({check.relative:.0%} of the change)",
            hint="write it in float32 (--dtype float32), or serve the adapter unmerged",
        )


def copy_rest(base: Path, out: Path) -> None:
    """Copy what a model folder holds beside weights: tokenizer, processor, templates."""
    for path in sorted(base.iterdir()):
        weights = path.suffix in (".safetensors", ".bin", ".pt", ".pth", ".gguf")
        index = path.name.endswith(".index.json")
        if path.is_file() and not weights and not index and path.name not in ("README.md", "lineage.json"):
            shutil.copyfile(path, out / path.name)


def _peft(
    adapter: Path,
    out: Path,
    backbone: Backbone,
    prompts: Sequence[Prompt],
    with_adapter: Tensor,
    base: Tensor,
) -> dict[str, Any]:
    """The folder as it is, checked by the stock loader."""
    from peft import PeftModel

    shutil.copyfile(adapter / WEIGHTS, out / WEIGHTS)
    config = read_json(adapter / CONFIG)
    config["base_model_name_or_path"] = str(backbone.path)
    config["inference_mode"] = True
    write_json(out / CONFIG, config)
    plain = load(ModelSection(id=str(backbone.path), dtype="float32"))
    plain.model = PeftModel.from_pretrained(plain.model, str(out))
    plain.model.eval()
    check = compare(logits(plain, prompts), with_adapter, base, len(prompts))
    refuse_bad(check, "the folder, loaded by PEFT,")
    return {"check": check.__dict__, "rank": config["r"]}


def _merged(
    adapter: Path,
    out: Path,
    backbone: Backbone,
    section: ModelSection,
    prompts: Sequence[Prompt],
    with_adapter: Tensor,
    base: Tensor,
    dtype: str,
) -> dict[str, Any]:
    """W0 + B A in float32, written in `dtype`, read back and compared."""
    lineage = read_lineage(backbone.path, backbone.fingerprint)
    for earlier in read_facts(adapter).get("chain") or ():
        lineage = lineage.then(str(earlier))
    lineage = lineage.then(adapter_fingerprint(adapter))
    merged = backbone.model.merge_and_unload(safe_merge=True)
    copy_rest(backbone.path, out)
    merged.to(getattr(torch, dtype)).save_pretrained(out, safe_serialization=True)
    lineage.write(out)
    again = load(section.model_copy(update={"id": str(out), "dtype": dtype}))
    again.model.float()
    check = compare(logits(again, prompts), with_adapter, base, len(prompts))
    refuse_bad(check, f"the merged model in {dtype}")
    return {"check": check.__dict__, "weights": hash_folder(out, "*.safetensors"), "dtype": dtype}
