"""Load a model with its processor: the embedded base, a folder, or a hub id from the local cache."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kore.artifacts.model_folder import EMBEDDED as EMBEDDED
from kore.artifacts.model_folder import embedded_base as embedded_base
from kore.artifacts.model_folder import model_folder as model_folder
from kore.errors import DataError, MissingArtefact, UsageError
from kore.io.files import hash_bytes, hash_file, hash_json, read_json
from kore.models.checkpoint import check_finite, weight_files
from kore.models.families import Family, family_of, model_class
from kore.models.image_processor import image_only
from kore.models.lineage import NAME as LINEAGE
from kore.models.lineage import Lineage, read_lineage
from kore.models.load_errors import loading
from kore.models.special_tokens import missing_marks, tokenizer_of

if TYPE_CHECKING:
    import torch

    from kore.config.resolve import ModelSection

_UNITS = 1024  # unit vectors at a time
_WHOLE = 64 << 20  # bytes of a weight file that is hashed whole
_END = 4096  # bytes of each end of a tensor that are hashed in a larger one


class Earlier(Protocol):
    """An earlier adapter that a model carries (`kore.adapters.stacked.Earlier`).

    Attributes:
        folder: the adapter's.
        fingerprint: of the adapter.
        chain: fingerprints of all adapters up to this one, oldest first.
    """

    folder: Path
    fingerprint: str
    chain: tuple[str, ...]

    def weight(self, linear: str, base: torch.Tensor) -> torch.Tensor:
        """The linear's weight with the adapter's change added, (d_out, d_in)."""
        ...

    def take_off(self, backbone: Backbone) -> None:
        """Give the model back as it was before the adapter."""
        ...

    def join(self, folder: Path) -> None:
        """Add the adapter to the one that is saved in `folder`."""
        ...


@dataclass
class Backbone:
    """A model ready to be asked, adapted or trained.

    Attributes:
        model: a causal or image-text-to-text model of transformers (or a PeftModel around one).
        processor: its processor (tokenizer, image processor, chat template); a text-only model's tokenizer.
        fingerprint: hash of the base's configuration and weights: what an adapter belongs to.
        earlier: the adapter that `model` carries already, under whatever is trained next.
        reads: what is changed of how the model reads its inputs (see `set_reading`).
    """

    model: Any
    processor: Any
    family: Family
    path: Path
    fingerprint: str
    device: torch.device
    earlier: Earlier | None = None
    reads: dict[str, Any] = field(default_factory=dict)

    @property
    def lineage(self) -> Lineage:
        """The base that the model began as, and the adapters merged into it or stacked on it since."""
        lineage = read_lineage(self.path, self.fingerprint)
        for adapter in self.earlier.chain if self.earlier else ():
            lineage = lineage.then(adapter)
        return lineage

    @property
    def identity(self) -> str:
        """Hash of the model as it answers: of the base and its earlier adapters. What a covariance
        belongs to."""
        return hash_json([self.fingerprint, *self.earlier.chain]) if self.earlier else self.fingerprint

    def weight(self, linear: str) -> torch.Tensor:
        """A language linear's weight as the model computes with it, (d_out, d_in)."""
        base = dense(self.model.get_submodule(linear))
        return self.earlier.weight(linear, base) if self.earlier else base

    def out_features(self, linear: str) -> int:
        """d_out of a language linear."""
        return int(self.model.get_submodule(linear).out_features)


def dense(linear: Any) -> torch.Tensor:
    """W0 of a linear, (d_out, d_in), as the model computes with it.

    A 4- or 8-bit one is asked for its outputs on unit vectors: after its first pass bitsandbytes may keep
    it packed in another order, which only its own forward knows how to read.
    """
    import torch

    weight: torch.Tensor = linear.weight
    if type(weight).__name__ not in ("Params4bit", "Int8Params"):
        return weight.detach()
    with torch.no_grad():
        units = torch.eye(linear.in_features, device=weight.device)
        rows = torch.cat([linear.forward(part) for part in torch.split(units, _UNITS)])
        return rows.T if linear.bias is None else (rows - linear.bias).T


def reads_images(folder: Path) -> bool:
    """Whether the model of a folder takes images, by its configuration alone.

    Raises:
        DataError: a configuration that KORE cannot use.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    with loading("model configuration", folder):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return model_class(config) is AutoModelForImageTextToText


def base_identity() -> dict[str, str]:
    """What results on the embedded base name it by: id, version and fingerprint."""
    folder = embedded_base()
    return {"id": EMBEDDED, "version": str(base_version(folder)), "fingerprint": fingerprint(folder)}


def base_version(folder: Path) -> str | None:
    """The version of an embedded base, which decides its answers; None for other models."""
    path = folder / "kore_base.json"
    return str(read_json(path).get("version")) if path.is_file() else None


def fingerprint(folder: Path) -> str:
    """Hash of a model folder's configuration, lineage and weight files.

    Weights above 64 MiB are identified by name, size, header and both ends of every tensor: reading
    14 GB to name a model would cost minutes.
    """
    parts: list[object] = [hash_file(folder / "config.json")]
    if (folder / LINEAGE).is_file():
        parts.append([LINEAGE, hash_file(folder / LINEAGE)])
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        parts.append([path.name, size, hash_file(path) if size < _WHOLE else _sampled(path, size)])
    return hash_json(parts)


def _sampled(path: Path, size: int) -> str:
    """The header of a safetensors file with both ends of every tensor; of any other file, its own ends."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = stream.read(length) if length <= size - 8 else b""
        try:
            tensors = [v["data_offsets"] for k, v in json.loads(header).items() if k != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return _ends(path, size)
        pieces = [header]
        for first, last in sorted(tensors):
            for start in (first, max(first, last - _END)):
                stream.seek(8 + length + start)
                pieces.append(stream.read(min(_END, last - start)))
    return hash_bytes(b"".join(pieces))


def _ends(path: Path, size: int) -> str:
    with path.open("rb") as stream:
        first = stream.read(1 << 20)
        stream.seek(size - (1 << 20))
        return hash_json([first.hex(), stream.read().hex()])


def pick_device(wanted: str) -> torch.device:
    """auto: CUDA, then MPS, then the CPU.

    Raises:
        UsageError: the device is not here.
    """
    import torch

    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return torch.device(next(name for name, present in here.items() if present))
    if not here.get(wanted, True):
        raise UsageError(f"model.device is {wanted}, but torch sees no such device", hint="set it to auto")
    return torch.device(wanted)


def pick_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """auto: float32 on a CPU, bfloat16 on a GPU."""
    import torch

    if wanted == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    dtype = getattr(torch, wanted)
    assert isinstance(dtype, torch.dtype)
    return dtype


def set_reading(model: Any, processor: Any, section: ModelSection) -> dict[str, Any]:
    """Read pictures from the vision tower's layer that the section names.

    Returns:
        What is changed of how the model reads its inputs, compared with what its folder says: by the
        section, and by the marks that its template leaves out. Inputs that were read otherwise have other
        covariances.
    """
    found: dict[str, Any] = {}
    layer = section.vision_select_layer
    if layer is not None and hasattr(model.config, "vision_feature_layer"):
        if model.config.vision_feature_layer != layer:
            found["vision_select_layer"] = layer
        model.config.vision_feature_layer = layer
    if section.max_pixels is not None:
        found["max_pixels"] = section.max_pixels
    if section.quantisation != "none":
        found["quantisation"] = "nf4" if section.quantisation == "4bit" else section.quantisation
    if marks := str(missing_marks(processor)):
        found["marks"] = marks
    return found


def load_processor(folder: Path, section: ModelSection) -> Any:
    """The model's processor with the profile's pixel limit; a text-only model's tokenizer.

    Raises:
        DataError: it cannot be loaded, or lacks an image processor or a chat template.
        UsageError: the pixel limit has no effect on it.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoProcessor, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    options: dict[str, Any] = {"trust_remote_code": False}
    if section.max_pixels is not None:
        options["max_pixels"] = section.max_pixels
    with loading("processor", folder):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        text_only = model_class(config) is AutoModelForCausalLM
        processor: Any
        try:
            if text_only:
                processor = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            else:
                processor = image_only(folder, **options) or AutoProcessor.from_pretrained(folder, **options)
        except ImportError as error:
            package = error.name or "torchvision"
            raise MissingArtefact(
                f"the model's processor needs {package}", where=str(folder), hint=f"pip install {package}"
            ) from error
    if not text_only and getattr(processor, "image_processor", None) is None:
        raise DataError(
            "no image processor",
            where=str(folder),
            hint="copy preprocessor_config.json (or processor_config.json) from the original model",
        )
    if not processor.chat_template and not tokenizer_of(processor).chat_template:
        raise DataError(
            "no chat template",
            where=str(folder),
            hint="use the instruct version of the model, or copy its chat_template.jinja into the folder",
        )
    if section.max_pixels is not None and not _limited(processor, section.max_pixels):
        raise UsageError(
            "model.max_pixels has no effect on this model's processor", hint="leave model.max_pixels out"
        )
    return processor


def _limited(processor: Any, most: int) -> bool:
    """Whether the image processor has taken the limit over, in one of the two ways that there are."""
    images = getattr(processor, "image_processor", None)
    size = getattr(images, "size", None) or {}
    longest = size.get("longest_edge") if hasattr(size, "get") else getattr(size, "longest_edge", None)
    return most in (getattr(images, "max_pixels", None), longest)


def load(section: ModelSection, *, download: bool = False) -> Backbone:
    """Load model and processor as the profile says, in evaluation mode.

    Raises:
        MissingArtefact: the model is not here.
        DataError: not an image-text-to-text model, weights that are missing, unexpected, broken or not
            finite, or its language layers cannot be found.
    """
    import torch
    from transformers import AutoConfig, BitsAndBytesConfig
    from transformers.utils import logging

    folder = model_folder(section.id, download=download)
    processor = load_processor(folder, section)
    device = pick_device(section.device)
    options: dict[str, Any] = {"dtype": pick_dtype(section.dtype, device), "trust_remote_code": False}
    if section.attention != "auto":
        options["attn_implementation"] = section.attention
    options["use_safetensors"] = True  # other weight files are pickles
    if section.quantisation != "none":
        if device.type == "mps":
            raise UsageError("model.quantisation does not work on MPS", hint="set model.quantisation to none")
        if importlib.util.find_spec("bitsandbytes") is None:
            raise MissingArtefact(
                "model.quantisation needs bitsandbytes", hint="pip install 'kore-inject[gpu]'"
            )
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=section.quantisation == "8bit",
            load_in_4bit=section.quantisation == "4bit",
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=options["dtype"],  # else float32
        )
        # by its number: accelerate takes no GPU without one for the one that it trains on
        current = device.type == "cuda" and device.index is None
        options["device_map"] = {"": torch.cuda.current_device() if current else device}
    logging.set_verbosity_error()
    weight_files(folder)
    with loading("model", folder):
        auto = model_class(AutoConfig.from_pretrained(folder, trust_remote_code=False))
        loaded: Any = auto.from_pretrained(folder, output_loading_info=True, **options)
    model, info = loaded
    refuse_incomplete(info, folder, ("missing", "unexpected"))
    check_finite(model.named_parameters(), folder)
    reads = set_reading(model, processor, section)
    if section.quantisation == "none":
        model.to(device)
    model.eval()
    return Backbone(model, processor, family_of(model), folder, fingerprint(folder), device, reads=reads)


def refuse_incomplete(info: Mapping[str, Any], folder: Path, kinds: tuple[str, ...]) -> None:
    """Raise if transformers initialised weights at random, or dropped some of the checkpoint's.

    Args:
        info: its loading info, which leaves out tied weights and what the family declares to be ignored.
        kinds: of keys to look at: missing, unexpected.

    Raises:
        DataError: how many, and the first one's name.
    """
    for what in kinds:
        if keys := sorted(info[f"{what}_keys"]):
            raise DataError(
                f"the checkpoint has {len(keys)} {what} weights, first {keys[0]}",
                where=str(folder),
                hint="the weights do not fit config.json: take both from the same model, complete",
            )
