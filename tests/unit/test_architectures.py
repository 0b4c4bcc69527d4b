"""Any model whose language layers form a plain stack is calibrated; others are refused with the reason."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText, AutoModelForSeq2SeqLM

from kore.errors import DataError
from kore.models.families import family_of, language_layers, language_linears
from kore.nullspace.layerwise import quiet_inference, run_layer, start

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 400,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
}
MADE: dict[str, dict[str, Any]] = {
    "smolvlm": {"text_config": {**TEXT, "model_type": "llama"}, "vision_config": VISION},
    # sliding and full attention by turns: each layer is called in its own way
    "gemma3": {
        "text_config": {
            **TEXT,
            "sliding_window": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
        "vision_config": VISION,
        "mm_tokens_per_image": 4,
    },
    "llava_next": {"text_config": {**TEXT, "model_type": "llama"}, "vision_config": VISION},
}
MADE["gemma3"]["text_config"]["num_hidden_layers"] = 4


def build(kind: str, config: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    return AutoModelForImageTextToText.from_config(CONFIG_MAPPING[kind](**config)).eval()


@pytest.mark.parametrize("kind", sorted(MADE))
def test_layers_run_one_by_one_give_the_models_own_hidden_states(kind: str) -> None:
    model = build(kind, MADE[kind])
    family = family_of(model)
    layers = language_layers(model, family)
    assert len(language_linears(model, family)) == 7 * len(layers)
    ids = torch.randint(3, 300, (2, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, 6:] = 0
    seen: list[torch.Tensor] = []

    def note(module: Any, args: Any, out: Any) -> None:
        seen.append(out[0] if isinstance(out, tuple) else out)

    handles = [layer.register_forward_hook(note) for layer in layers]
    with quiet_inference():
        model(input_ids=ids, attention_mask=mask, use_cache=False)
    for handle in handles:
        handle.remove()
    with quiet_inference():
        begun = start(model, layers, {"input_ids": ids, "attention_mask": mask})
        hidden = begun.hidden
        for layer, call, expected in zip(layers, begun.calls, seen, strict=True):
            hidden = run_layer(layer, hidden, call)
            assert torch.equal(hidden[mask.bool()], expected[mask.bool()])


def test_layers_are_not_run_alone_where_the_model_adds_to_hidden_states_between_them() -> None:
    """Qwen3-VL's deep stack puts visual features in again after the first layers."""
    vision = {
        "depth": 3,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": 32,
        "patch_size": 4,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0, 1],
    }
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1], "mrope_interleaved": True}
    model = build(
        "qwen3_vl",
        {
            "text_config": {**TEXT, "rope_parameters": rope},
            "vision_config": vision,
            "image_token_id": 7,
            "vision_start_token_id": 8,
        },
    )
    ids = torch.tensor([[8, 7, 7, 7, 7, 20, 21]])
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == 7).long(),
        "pixel_values": torch.randn(16, 3 * 2 * 4 * 4),
        "image_grid_thw": torch.tensor([[1, 4, 4]]),
    }
    with quiet_inference():
        assert model(**inputs).logits.isfinite().all()
        with pytest.raises(DataError, match="does more between its decoder layers"):
            start(model, language_layers(model), inputs)
    assert not any("Recorder" in type(layer).__name__ for layer in language_layers(model))


def test_encoder_decoder_models_are_refused_by_name() -> None:
    config = CONFIG_MAPPING["t5"](d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2, vocab_size=100)
    with pytest.raises(DataError, match="t5 is an encoder-decoder model"):
        family_of(AutoModelForSeq2SeqLM.from_config(config))
