"""Tiny random models of published families: their real configuration and processor classes, built in code.

All share one small byte-level tokenizer. What a family's entry says of its processor and its pixel limits is
what `docs/models.md` prints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.tiny import tokenizer

HIDDEN, LAYERS = 32, 2
TEXT: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 1024,
}
VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
}
LINEAR_ATTENTION: dict[str, Any] = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
MIXTURE: dict[str, Any] = {
    "moe_intermediate_size": 16,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}
CHATML = (
    "{{% for message in messages %}}<|im_start|>{{{{ message['role'] }}}}\n"
    "{{% if message['content'] is string %}}{{{{ message['content'] }}}}{{% else %}}"
    "{{% for part in message['content'] %}}"
    "{{% if part['type'] == 'image' %}}{image}{{% else %}}{{{{ part['text'] }}}}{{% endif %}}"
    "{{% endfor %}}{{% endif %}}<|im_end|>\n{{% endfor %}}"
    "{{% if add_generation_prompt %}}<|im_start|>assistant\n{{% endif %}}"
)


@dataclass(frozen=True)
class Case:
    """A family.

    Attributes:
        title: as people call it.
        model_type: transformers' name of its configuration.
        config: settings of a tiny configuration, from the ids of the tokens.
        tokens: special tokens beside those of the chat template.
        image: what the chat template writes for an image.
        processor: builds the processor, from tokenizer and chat template; None for text-only models.
        pixels: how a user limits the size of images, for the table.
        stand_in: what of the real processor is left out where torchvision is not installed.
        fast: whether the fast tests take it.
    """

    title: str
    model_type: str
    config: Callable[[Callable[[str], int]], dict[str, Any]]
    tokens: tuple[str, ...] = ()
    image: str = ""
    processor: Callable[[Any, str], Any] | None = None
    pixels: str = ""
    stand_in: str = ""
    fast: bool = False
    named: dict[str, str] = field(default_factory=dict)

    @property
    def reads_images(self) -> bool:
        return self.processor is not None

    def build(self, folder: Path) -> Path:
        """Write model and processor to `folder`."""
        from tokenizers import AddedToken
        from transformers import CONFIG_MAPPING

        from kore.models.families import model_class

        torch.manual_seed(0)
        words = tokenizer(image=None)
        tokens = ["<|im_start|>", "<|im_end|>", *self.tokens]
        words.add_tokens([AddedToken(t, special=True) for t in tokens], special_tokens=True)
        words.eos_token = "<|im_end|>"
        for name, token in self.named.items():  # tokens that the processor looks for by name
            words._special_tokens_map[name] = token
            words.SPECIAL_TOKENS_ATTRIBUTES = [*words.SPECIAL_TOKENS_ATTRIBUTES, name]
        ends = {"pad_token_id": 0, "eos_token_id": words.eos_token_id, "bos_token_id": None}
        settings = self.config(words.convert_tokens_to_ids)
        text = settings.get("text_config", settings)
        text.update(vocab_size=len(words), **ends)
        config = CONFIG_MAPPING[self.model_type](**settings)
        model = model_class(config).from_config(config).eval()
        with torch.no_grad():  # at the usual 0.02 so small a model hardly depends on its layers
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(5)
        model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, words.eos_token_id
        model.save_pretrained(folder)
        template = CHATML.format(image=self.image)
        if self.processor is None:
            words.chat_template = template
            words.save_pretrained(folder)
        else:
            self.processor(words, template).save_pretrained(folder)
        return folder


def text(title: str, model_type: str, *, fast: bool = True, **settings: Any) -> Case:
    return Case(title, model_type, lambda ids: {**TEXT, **settings}, fast=fast)


CASES: dict[str, Case] = {
    "llama": text("Llama 2 and 3", "llama"),
    "qwen3": text("Qwen3", "qwen3"),
    "gemma3_text": text(
        "Gemma 3 text", "gemma3_text", sliding_window=4, layer_types=["sliding_attention", "full_attention"]
    ),
    "phi": text("Phi-1 and 2", "phi"),
    "phi3": text("Phi-3 and 4", "phi3"),
    "olmo": text("OLMo", "olmo"),
    "olmo2": text("OLMo 2", "olmo2"),
    "gpt_neox": text("GPT-NeoX, Pythia", "gpt_neox"),
    "mistral": text("Mistral", "mistral", sliding_window=4),
    "mixtral": text("Mixtral", "mixtral", num_local_experts=4, num_experts_per_tok=2),
    "qwen3_moe": text("Qwen3 MoE", "qwen3_moe", **MIXTURE),
    "qwen3_next": text(
        "Qwen3-Next", "qwen3_next", **MIXTURE, **LINEAR_ATTENTION, shared_expert_intermediate_size=16
    ),
    "qwen3_5_text": text("Qwen3.5 text", "qwen3_5_text", **LINEAR_ATTENTION),
    "falcon_h1": text(
        "Falcon-H1", "falcon_h1", mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8, fast=False
    ),
    "opt": text("OPT", "opt", ffn_dim=64, word_embed_proj_dim=HIDDEN, fast=False),
}

_ = partial
