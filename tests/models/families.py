"""Tiny random models of published families: their real configuration and processor classes, built in code.

All share one small byte-level tokenizer. What a family's entry says of its processor and its pixel limits is
what `docs/models.md` prints.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from kore.models.image_processor import make
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
        named: tokens that the processor looks for by name.
        whole: whether its decoder layers cannot be run alone, so that calibration takes whole passes.
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
    whole: bool = False

    @property
    def reads_images(self) -> bool:
        return self.processor is not None

    def parts(self) -> tuple[Any, Any]:
        """The tokenizer and the configuration."""
        from tokenizers import AddedToken
        from transformers import CONFIG_MAPPING, PreTrainedTokenizerFast

        words = tokenizer(image=None)
        tokens = ["<|im_start|>", "<|im_end|>", *self.tokens]
        words.add_tokens([AddedToken(t, special=True) for t in tokens], special_tokens=True)
        words.eos_token = "<|im_end|>"
        if self.named:
            words = PreTrainedTokenizerFast(
                tokenizer_object=words.backend_tokenizer,
                pad_token="<pad>",
                eos_token="<|im_end|>",
                extra_special_tokens=self.named,
            )
        ends = {"pad_token_id": 0, "eos_token_id": words.eos_token_id, "bos_token_id": 1}
        settings = self.config(words.convert_tokens_to_ids)
        settings.get("text_config", settings).update(vocab_size=len(words), **ends)
        return words, CONFIG_MAPPING[self.model_type](**settings)

    def build(self, folder: Path) -> Path:
        """Write model and processor to `folder`."""
        from kore.models.families import model_class

        torch.manual_seed(0)
        words, config = self.parts()
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


def text(title: str, model_type: str, *, fast: bool = True, whole: bool = False, **settings: Any) -> Case:
    """A text-only family."""
    return Case(title, model_type, lambda ids: {**TEXT, **settings}, fast=fast, whole=whole)


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
        "Falcon-H1",
        "falcon_h1",
        mamba_d_ssm=32,
        mamba_n_heads=4,
        mamba_d_head=8,
        mamba_d_state=8,
        fast=False,
        whole=True,
    ),
    "opt": text("OPT", "opt", ffn_dim=64, word_embed_proj_dim=HIDDEN, fast=False),
}


def _llava(words: Any, template: str) -> Any:
    from transformers import LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    square = {"height": 32, "width": 32}
    return LlavaProcessor(
        CLIPImageProcessorPil(size=square, crop_size=square),
        words,
        patch_size=16,
        vision_feature_select_strategy="default",
        chat_template=template,
        num_additional_image_tokens=1,
    )


def _llava_next(words: Any, template: str) -> Any:
    from transformers import LlavaNextProcessor
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    square = {"height": 32, "width": 32}
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 32}, crop_size=square, image_grid_pinpoints=[[32, 64], [64, 32]]
    )
    return LlavaNextProcessor(
        images,
        words,
        patch_size=16,
        vision_feature_select_strategy="default",
        chat_template=template,
        num_additional_image_tokens=1,
    )


def _onevision(words: Any, template: str) -> Any:
    from transformers import LlavaOnevisionProcessor
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )

    images = LlavaOnevisionImageProcessorPil(
        size={"height": 32, "width": 32}, image_grid_pinpoints=[[32, 64], [64, 32]]
    )
    return make(
        LlavaOnevisionProcessor,
        images,
        words,
        template,
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_9",
    )


def _qwen(kind: str, patch: int) -> Callable[[Any, str], Any]:
    def build(words: Any, template: str) -> Any:
        import transformers
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        side = 2 * patch
        images = Qwen2VLImageProcessorPil(
            patch_size=patch, min_pixels=side * side, max_pixels=9 * side * side
        )
        return make(getattr(transformers, kind), images, words, template)

    return build


def _gemma3(words: Any, template: str) -> Any:
    from transformers import Gemma3Processor
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    images = Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
    return Gemma3Processor(images, words, chat_template=template, image_seq_length=4)


def _gemma4(words: Any, template: str) -> Any:
    from transformers import Gemma4Processor
    from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil

    images = Gemma4ImageProcessorPil(patch_size=4, pooling_kernel_size=2, max_soft_tokens=70)
    return make(Gemma4Processor, images, words, template, image_seq_length=70)


def _internvl(words: Any, template: str) -> Any:
    from transformers import InternVLProcessor
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    images = GotOcr2ImageProcessorPil(size={"height": 32, "width": 32}, max_patches=2, crop_to_patches=True)
    return make(InternVLProcessor, images, words, template, image_seq_length=1)


def _idefics3(words: Any, template: str) -> Any:
    from transformers import Idefics3Processor
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    images = Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    return Idefics3Processor(images, words, image_seq_len=4, chat_template=template)


def _smolvlm(words: Any, template: str) -> Any:
    from transformers import SmolVLMProcessor
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    images = SmolVLMImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    return make(SmolVLMProcessor, images, words, template, image_seq_len=4)


def _mllama(words: Any, template: str) -> Any:
    from transformers import MllamaProcessor
    from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

    images = MllamaImageProcessorPil(size={"height": 32, "width": 32}, max_image_tiles=2)
    words.add_special_tokens({"bos_token": "<|begin_of_text|>"})
    return MllamaProcessor(images, words, chat_template="<|begin_of_text|>" + template)


def _pixtral(words: Any, template: str) -> Any:
    from transformers.models.pixtral import image_processing_pil_pixtral as pil

    if find_spec("torchvision") is None:  # which this module would bring, for the one function that is used
        sys.modules.setdefault("transformers.models.pixtral.image_processing_pixtral", pil)
    from transformers.models.pixtral.processing_pixtral import PixtralProcessor

    images = pil.PixtralImageProcessorPil(size={"longest_edge": 64}, patch_size={"height": 16, "width": 16})
    return PixtralProcessor(images, words, patch_size=16, spatial_merge_size=2, chat_template=template)


def _glm4v(words: Any, template: str) -> Any:
    from transformers import Glm4vProcessor
    from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil

    images = Glm4vImageProcessorPil(patch_size=4, size={"shortest_edge": 2 * 64, "longest_edge": 2 * 9 * 64})
    return make(Glm4vProcessor, images, words, template)


VIDEO = "video half"
QWEN = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
GRID = "model.max_pixels"
TILES = "fixed by the processor: tiles of one size"
FIXED = "fixed by the processor: one size"


def _qwen_ids(ids: Callable[[str], int]) -> dict[str, Any]:
    return {
        "image_token_id": ids("<|image_pad|>"),
        "video_token_id": ids("<|video_pad|>"),
        "vision_start_token_id": ids("<|vision_start|>"),
        "vision_end_token_id": ids("<|vision_end|>"),
    }


def _rope(**more: Any) -> dict[str, Any]:
    sections = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
    return {"rope_parameters": {**sections, **more}}


def _qwen3_vision(**more: Any) -> dict[str, Any]:
    return {
        "depth": 3,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": HIDDEN,
        "patch_size": 4,
        "num_position_embeddings": 16,
        **more,
    }


def _qwen3(rope: dict[str, Any], text: dict[str, Any], vision: dict[str, Any]) -> Any:
    return lambda ids: {
        "text_config": {**TEXT, **rope, **text},
        "vision_config": _qwen3_vision(**vision),
        **_qwen_ids(ids),
    }


def _with_image_token(
    image: str = "<image>", **settings: Any
) -> Callable[[Callable[[str], int]], dict[str, Any]]:
    """A configuration of text and vision parts, and which token stands for the image."""

    def config(ids: Callable[[str], int]) -> dict[str, Any]:
        base = {"text_config": {**TEXT, "model_type": "llama"}, "vision_config": dict(VISION)}
        token = ids(image)
        return {**base, "image_token_id": token, **settings, "image_token_index": token}

    return config


MROPE_3 = _rope(mrope_interleaved=True)
DEEPSTACK = {"deepstack_visual_indexes": [0, 1]}

CASES |= {
    "llava": Case(
        "LLaVA-1.5",
        "llava",
        _with_image_token(
            vision_config={**VISION, "model_type": "clip_vision_model"},
            image_seq_length=4,
            vision_feature_layer=-1,
            vision_feature_select_strategy="default",
        ),
        image="<image>\n",
        processor=_llava,
        pixels=FIXED,
        fast=True,
    ),
    "qwen3_vl": Case(
        "Qwen3-VL",
        "qwen3_vl",
        _qwen3(MROPE_3, {}, DEEPSTACK),
        QWEN,
        QWEN_IMAGE,
        _qwen("Qwen3VLProcessor", 4),
        GRID,
        VIDEO,
        fast=True,
        whole=True,
    ),
    "gemma3": Case(
        "Gemma 3",
        "gemma3",
        lambda ids: {
            "text_config": {
                **TEXT,
                "sliding_window": 4,
                "layer_types": ["sliding_attention", "full_attention"],
            },
            "vision_config": dict(VISION),
            "mm_tokens_per_image": 4,
            "image_token_index": ids("<image_soft_token>"),
            "boi_token_index": ids("<start_of_image>"),
            "eoi_token_index": ids("<end_of_image>"),
        },
        ("<image_soft_token>", "<start_of_image>", "<end_of_image>"),
        "<start_of_image>",
        _gemma3,
        FIXED,
        fast=True,
        named={
            "image_token": "<image_soft_token>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
        },
    ),
    "qwen3_5": Case(
        "Qwen3.5",
        "qwen3_5",
        _qwen3(_rope(mrope_interleaved=True, partial_rotary_factor=1.0), LINEAR_ATTENTION, {}),
        QWEN,
        QWEN_IMAGE,
        _qwen("Qwen3VLProcessor", 4),
        GRID,
        VIDEO,
    ),
    "internvl": Case(
        "InternVL 3",
        "internvl",
        lambda ids: {
            "text_config": {**TEXT, "model_type": "qwen2"},
            "vision_config": {**VISION, "image_size": [32, 32], "patch_size": [16, 16]},
            "image_token_id": ids("<IMG_CONTEXT>"),
            "image_seq_length": 1,
        },
        ("<img>", "</img>", "<IMG_CONTEXT>", "<video>"),
        "<IMG_CONTEXT>\n",
        _internvl,
        TILES,
        VIDEO,
        named={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
    ),
    "smolvlm": Case(
        "SmolVLM2",
        "smolvlm",
        _with_image_token(scale_factor=1),
        (
            "<fake_token_around_image>",
            "<global-img>",
            "<video>",
            *(f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)),
        ),
        "<image>",
        _smolvlm,
        TILES,
        VIDEO,
    ),
    "idefics3": Case(
        "Idefics3, SmolVLM",
        "idefics3",
        _with_image_token(scale_factor=1),
        (
            "<fake_token_around_image>",
            "<global-img>",
            *(f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)),
        ),
        "<image>",
        _idefics3,
        TILES,
    ),
    "llava_onevision": Case(
        "LLaVA-OneVision",
        "llava_onevision",
        _with_image_token(
            text_config={**TEXT, "model_type": "qwen2"},
            vision_config={**VISION, "model_type": "siglip_vision_model", "vision_use_head": False},
            image_grid_pinpoints=[[32, 64], [64, 32]],
            vision_feature_layer=-1,
        ),
        ("<video>",),
        "<image>\n",
        _onevision,
        TILES,
        VIDEO,
    ),
    "mllama": Case(
        "Llama 3.2 Vision (Mllama)",
        "mllama",
        lambda ids: {
            "text_config": {**TEXT, "num_hidden_layers": 3, "cross_attention_layers": [1]},
            "vision_config": {
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 2,
                "num_global_layers": 1,
                "attention_heads": 2,
                "image_size": 32,
                "patch_size": 16,
                "max_num_tiles": 2,
                "vision_output_dim": 32,
                "intermediate_layers_indices": [0],
                "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
            },
            "image_token_index": ids("<|image|>"),
        },
        ("<|image|>", "<|python_tag|>", "<|begin_of_text|>"),
        "<|image|>",
        _mllama,
        TILES,
    ),
    "qwen3_vl_moe": Case(
        "Qwen3-VL MoE",
        "qwen3_vl_moe",
        _qwen3(MROPE_3, MIXTURE, DEEPSTACK),
        QWEN,
        QWEN_IMAGE,
        _qwen("Qwen3VLProcessor", 4),
        GRID,
        VIDEO,
        whole=True,
    ),
    "qwen2_5_vl": Case(
        "Qwen2.5-VL",
        "qwen2_5_vl",
        lambda ids: {
            "text_config": {**TEXT, **_rope()},
            **_qwen_ids(ids),
            "vision_config": {
                "depth": 2,
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_heads": 2,
                "out_hidden_size": HIDDEN,
                "patch_size": 14,
                "window_size": 56,
                "fullatt_block_indexes": [1],
            },
        },
        QWEN,
        QWEN_IMAGE,
        _qwen("Qwen2_5_VLProcessor", 14),
        GRID,
        VIDEO,
    ),
    "qwen2_vl": Case(
        "Qwen2-VL",
        "qwen2_vl",
        lambda ids: {
            "text_config": {**TEXT, **_rope()},
            **_qwen_ids(ids),
            "vision_config": {
                "depth": 2,
                "embed_dim": 16,
                "hidden_size": HIDDEN,
                "num_heads": 2,
                "mlp_ratio": 2,
                "patch_size": 14,
            },
        },
        QWEN,
        QWEN_IMAGE,
        _qwen("Qwen2VLProcessor", 14),
        GRID,
        VIDEO,
    ),
    "llava_next": Case(
        "LLaVA-NeXT",
        "llava_next",
        _with_image_token(
            vision_config={**VISION, "model_type": "clip_vision_model"},
            vision_feature_layer=-1,
            image_grid_pinpoints=[[32, 64], [64, 32]],
            vision_feature_select_strategy="default",
        ),
        image="<image>\n",
        processor=_llava_next,
        pixels=TILES,
    ),
    "mistral3": Case(
        "Mistral 3, Pixtral",
        "mistral3",
        _with_image_token(
            "[IMG]",
            text_config={**TEXT, "model_type": "mistral"},
            vision_config={**VISION, "model_type": "pixtral", "image_size": 64, "head_dim": 8},
            spatial_merge_size=2,
        ),
        ("[IMG]", "[IMG_BREAK]", "[IMG_END]"),
        "[IMG]",
        _pixtral,
        TILES,
        "processor",
    ),
    "gemma4": Case(
        "Gemma 4",
        "gemma4",
        lambda ids: {
            "text_config": {
                **TEXT,
                "sliding_window": 4,
                "layer_types": ["sliding_attention", "full_attention"],
                "hidden_size_per_layer_input": 8,
                "vocab_size_per_layer_input": 512,
                "num_kv_shared_layers": 0,
                "global_head_dim": 8,
            },
            "vision_config": {
                **VISION,
                "head_dim": 8,
                "num_key_value_heads": 2,
                "patch_size": 4,
                "pooling_kernel_size": 2,
            },
            "audio_config": None,
            "image_token_id": ids("<|image|>"),
            "boi_token_id": ids("<|image>"),
            "eoi_token_id": ids("<image|>"),
        },
        ("<|image|>", "<|image>", "<image|>", "<|audio|>", "<|audio>", "<audio|>", "<|video|>"),
        "<|image|>",
        _gemma4,
        FIXED,
        "video and audio halves",
        named={
            "image_token": "<|image|>",
            "boi_token": "<|image>",
            "eoi_token": "<image|>",
            "audio_token": "<|audio|>",
            "boa_token": "<|audio>",
            "eoa_token": "<audio|>",
        },
    ),
    "glm4v": Case(
        "GLM-4.1V",
        "glm4v",
        lambda ids: {
            "text_config": {**TEXT, **_rope(partial_rotary_factor=1.0)},
            "vision_config": {
                "depth": 2,
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_heads": 2,
                "out_hidden_size": HIDDEN,
                "patch_size": 4,
                "image_size": 32,
            },
            "image_token_id": ids("<|image|>"),
            "video_token_id": ids("<|video|>"),
            "image_start_token_id": ids("<|begin_of_image|>"),
            "image_end_token_id": ids("<|end_of_image|>"),
            "video_start_token_id": ids("<|begin_of_video|>"),
            "video_end_token_id": ids("<|end_of_video|>"),
        },
        (
            "<|image|>",
            "<|video|>",
            "<|begin_of_image|>",
            "<|end_of_image|>",
            "<|begin_of_video|>",
            "<|end_of_video|>",
        ),
        "<|begin_of_image|><|image|><|end_of_image|>",
        _glm4v,
        "set by the processor: its least and most pixels",
        VIDEO,
    ),
}
