"""Processors without their video half.

transformers builds that half on torchvision, and refuses the whole processor where torchvision is not
installed, although images never touch it. Here the same class is made of tokenizer and image half alone.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kore.errors import DataError
from kore.io.files import read_json

_PARTS = ("image_processor", "tokenizer", "chat_template")
_ABSENT = ("video_processor", "feature_extractor")


def image_only(folder: Path, **options: Any) -> Any:
    """The processor of a model folder without its video half; `options` go to its image half.

    Returns:
        None where the folder's full processor can be built.

    Raises:
        DataError: no chat template in the folder.
    """
    kind = _class_of(folder)
    if kind is None:
        return None
    from transformers import AutoImageProcessor, AutoTokenizer

    images = AutoImageProcessor.from_pretrained(folder, **options)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    settings = read_json(folder / "processor_config.json") if _has(folder, "processor_config.json") else {}
    known = inspect.signature(kind.__init__).parameters
    extra = {k: v for k, v in settings.items() if k in known and k not in (*_PARTS, *_ABSENT)}
    return make(kind, images, tokenizer, _template(folder, tokenizer), **extra)


def make(kind: type, image_processor: Any, tokenizer: Any, chat_template: str, **settings: Any) -> Any:
    """A processor of class `kind` made of these parts; giving it a video is an error."""
    from transformers import ProcessorMixin

    module = sys.modules[kind.__module__]
    if getattr(module, "num2words", True) is None:  # SmolVLM's: spells out how many frames a video has
        module.num2words = str  # type: ignore[attr-defined]

    class Parts(ProcessorMixin):
        """Takes the parts that there are, whatever a subclass hands on for the others."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            build: Any = super().__init__
            named = {k: v for k, v in kwargs.items() if k == "chat_template" or v is not None}
            build(*(part for part in args if part is not None), **named)

    class ImageProcessor(kind, Parts):  # type: ignore[misc]
        """Images and text only."""

        video_processor = SimpleNamespace(model_input_names=[], num_frames=0, fps=0)

        def __init__(self, image_processor: Any = None, tokenizer: Any = None, **settings: Any) -> None:
            super().__init__(image_processor=image_processor, tokenizer=tokenizer, **absent, **settings)

    build: Any = kind.__init__  # type: ignore[misc]
    whole = inspect.signature(build)
    absent = {name: None for name in _ABSENT if name in whole.parameters}
    # transformers reads here which parts and settings a processor has, and saves those
    mine = [p for name, p in whole.parameters.items() if name not in _ABSENT]
    own: Any = ImageProcessor.__dict__["__init__"]
    own.__signature__ = whole.replace(parameters=mine)
    ImageProcessor.__name__ = kind.__name__  # a saved folder names the full class
    return ImageProcessor(image_processor, tokenizer, chat_template=chat_template, **settings)


def _class_of(folder: Path) -> Any:
    """The folder's processor class, if it insists on a video half and that cannot be built here."""
    from importlib import import_module
    from importlib.util import find_spec

    import transformers
    from transformers.models.auto import processing_auto

    if find_spec("torchvision") is not None:
        return None
    names: Any = processing_auto.__dict__["PROCESSOR_MAPPING_NAMES"]
    name = names.get(str(read_json(folder / "config.json").get("model_type")))
    for file in ("preprocessor_config.json", "processor_config.json"):
        if _has(folder, file):
            name = read_json(folder / file).get("processor_class") or name
    place = transformers._class_to_module.get(name)  # type: ignore[attr-defined]
    if place is None:
        return None
    # from its own module: the package itself hands out a stand-in for what it cannot build
    kind = getattr(import_module(f"transformers.{place}"), str(name))
    refused = kind is not getattr(transformers, str(name))
    return kind if refused or "video_processor" in inspect.signature(kind.__init__).parameters else None


def _has(folder: Path, file: str) -> bool:
    return (folder / file).is_file()


def _template(folder: Path, tokenizer: Any) -> str:
    if _has(folder, "chat_template.jinja"):
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    if _has(folder, "chat_template.json"):
        return str(read_json(folder / "chat_template.json")["chat_template"])
    if tokenizer.chat_template:
        return str(tokenizer.chat_template)
    raise DataError("no chat template", where=str(folder))
