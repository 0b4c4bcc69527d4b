"""LLaVA models of real shapes with random weights, and samples for them; built here, nothing is fetched."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ARCHITECTURE = ROOT / "kore" / "models" / "architectures" / "llava-1.5-7b"
IMAGE = 336  # pixels of a side: 24 x 24 patches of 14, 576 tokens
PATCH = 14


def processor() -> Any:
    """LLaVA-1.5's processor around a small tokenizer: 576 tokens a picture."""
    sys.path.insert(0, str(ROOT))
    from transformers import LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    from tests.tiny import CHAT_TEMPLATE, tokenizer

    side = {"height": IMAGE, "width": IMAGE}
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size=side, crop_size=side),
        tokenizer=tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        num_additional_image_tokens=1,
    )


def config(words: Any, *, width: int, inner: int, layers: int, vocabulary: int, vision: int) -> Any:
    """LLaVA-1.5-7B's configuration with some sizes changed.

    Args:
        words: the tokenizer, for the picture's token.
        vision: width of the vision tower; below 1024 it has two layers.
    """
    from transformers import LlavaConfig

    value = json.loads((ARCHITECTURE / "config.json").read_text())
    value["image_token_index"] = words.convert_tokens_to_ids("<image>")
    value["pad_token_id"] = words.pad_token_id
    value["text_config"].update(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 128),
        num_key_value_heads=max(1, width // 128),
        vocab_size=vocabulary,
    )
    if vision < 1024:
        value["vision_config"].update(
            hidden_size=vision, intermediate_size=4 * vision, num_hidden_layers=2, num_attention_heads=2
        )
    return LlavaConfig(**value)


def write_model(folder: Path, *, width: int, inner: int, layers: int = 1) -> Path:
    """A model folder in float32 whose language layers have the given widths; the vision tower is small."""
    import torch
    from transformers import LlavaForConditionalGeneration

    torch.manual_seed(0)
    ready = processor()
    shape = config(ready.tokenizer, width=width, inner=inner, layers=layers, vocabulary=512, vision=64)
    model = LlavaForConditionalGeneration(shape).eval()
    model.save_pretrained(folder)
    ready.save_pretrained(folder)
    return folder


def write_samples(folder: Path, count: int, seed: int = 0) -> Path:
    """Random pictures, each with a question of random length, as JSONL."""
    import random

    import numpy
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    pixels = numpy.random.default_rng(seed)
    lines = []
    for index in range(count):
        small = Image.fromarray(pixels.integers(0, 256, (12, 12, 3), dtype=numpy.uint8))
        small.resize((IMAGE, IMAGE)).save(folder / f"{index}.png")
        question = "What is the capital of the country in the image? " * draw.randint(1, 3)
        turns = [
            {"from": "human", "value": f"<image>\n{question.strip()}"},
            {"from": "gpt", "value": "Lima"},
        ]
        lines.append(json.dumps({"id": str(index), "image": f"{index}.png", "conversations": turns}))
    path = folder / "samples.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path
