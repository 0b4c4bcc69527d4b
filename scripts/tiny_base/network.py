"""The base's architecture, and how it is written to and read from its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from kore.io.files import hash_file
from scripts.tiny_base.tokens import IMAGE_SIZE, PATCH

WIDTH, LAYERS, INNER, HEADS = 384, 5, 768, 6
SIGHT_WIDTH, SIGHT_LAYERS = 192, 4


def build_model(tokenizer: Any) -> Any:
    """A freshly initialised ``LlavaForConditionalGeneration`` for ``tokenizer``."""
    from transformers import (
        CLIPVisionConfig,
        GenerationConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    sight = CLIPVisionConfig(
        hidden_size=SIGHT_WIDTH,
        intermediate_size=4 * SIGHT_WIDTH,
        num_hidden_layers=SIGHT_LAYERS,
        num_attention_heads=6,
        image_size=IMAGE_SIZE,
        patch_size=PATCH,
    )
    text = LlamaConfig(
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        vocab_size=len(tokenizer),
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=eos,
        pad_token_id=pad,
    )
    config = LlavaConfig(
        vision_config=sight,
        text_config=text,
        image_token_index=tokenizer.image_token_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
        image_seq_length=(IMAGE_SIZE // PATCH) ** 2,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        bos_token_id=None, eos_token_id=eos, pad_token_id=pad, do_sample=False, max_new_tokens=64
    )
    return model


def quick_halves() -> torch.autocast:
    """bfloat16 where the processor multiplies it; float32 elsewhere, which is many times quicker there."""
    able = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return torch.autocast("cpu", torch.bfloat16, enabled=able)


def save_checkpoint(path: Path, parts: Mapping[str, Any], step: int) -> None:
    """Write the states of all parts in one go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: part.state_dict() for name, part in parts.items()}
    torch.save({**state, "step": step}, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def load_checkpoint(path: Path, parts: Mapping[str, Any]) -> int:
    """Put the parts where they were; the step, 0 without a checkpoint."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["step"])


def save_base(model: Any, processor: Any, folder: Path, facts: dict[str, Any]) -> None:
    """Write the model in fp16 with its processor and ``kore_base.json``."""
    import copy

    folder.mkdir(parents=True, exist_ok=True)
    half = copy.deepcopy(model).to(torch.float16)
    half.config.dtype = "float16"
    half.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    told = {**facts, "weights": hash_file(folder / "model.safetensors")}
    (folder / "kore_base.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def load_base(folder: Path) -> tuple[Any, Any]:
    """Model in float32 and its processor."""
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    model: Any = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    reader: Any = AutoProcessor
    return model.eval(), reader.from_pretrained(folder)
