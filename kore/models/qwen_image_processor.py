"""Qwen2-VL's processors without their video half.

transformers builds that half on torchvision, and refuses the whole processor where torchvision is not
installed, although pictures never touch it. Here the same class is made of the picture half alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kore.errors import DataError

FAMILIES = ("qwen2_5_vl", "qwen2_vl")


def needed(model_type: str) -> bool:
    """Whether this family's full processor cannot be built here."""
    from importlib.util import find_spec

    return model_type in FAMILIES and find_spec("torchvision") is None


def load(folder: Path, **options: Any) -> Any:
    """The picture processor of a Qwen2-VL or Qwen2.5-VL folder; `options` go to its picture half.

    Raises:
        DataError: no chat template in the folder.
    """
    from transformers import AutoTokenizer
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    images = Qwen2VLImageProcessorPil.from_pretrained(folder, **options)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return make(images, tokenizer, _template(folder, tokenizer))


def make(image_processor: Any, tokenizer: Any, chat_template: str) -> Any:
    """A Qwen2_5_VLProcessor of these parts; giving it a video is an error."""
    from transformers import ProcessorMixin
    from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor

    class PictureProcessor(Qwen2_5_VLProcessor):
        """Pictures and text only."""

        def __init__(
            self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None
        ) -> None:
            self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
            self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
            self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
            # the parent's own __init__ insists on a video processor
            build: Any = ProcessorMixin.__init__
            build(self, image_processor, tokenizer, chat_template=chat_template)

    return PictureProcessor(image_processor, tokenizer, chat_template)


def _template(folder: Path, tokenizer: Any) -> str:
    from kore.io.files import read_json

    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    if (folder / "chat_template.json").is_file():
        return str(read_json(folder / "chat_template.json")["chat_template"])
    if tokenizer.chat_template:
        return str(tokenizer.chat_template)
    raise DataError("no chat template", where=str(folder))
