"""Weight files of a model or adapter folder: which they are, and whether they can be trusted."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from kore.errors import DataError
from kore.io.files import read_json
from kore.models.load_errors import loading

if TYPE_CHECKING:
    from torch import Tensor

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_LFS = b"version https://git-lfs"
_AGAIN = "download it again"


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers reads, each checked to be whole.

    Raises:
        DataError: none, pickles only, a file that the index names but is not there, or a broken file.
    """
    files = sorted(folder.glob("*.safetensors"))
    if (folder / SINGLE).is_file():
        files = [folder / SINGLE]
    elif (folder / INDEX).is_file():
        try:
            names = sorted(set(read_json(folder / INDEX)["weight_map"].values()))
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError("not an index of weights", where=str(folder / INDEX), hint=_AGAIN) from error
        files = [folder / str(name) for name in names]
        if absent := [path.name for path in files if not path.is_file()]:
            raise DataError(
                f"{len(absent)} of {len(files)} weight files are missing, first {absent[0]}",
                where=str(folder),
                hint="download the missing files",
            )
    if not files:
        refuse_pickles(folder)
        raise DataError("holds no safetensors weights", where=str(folder))
    for path in files:
        check_whole(path)
    return files


def refuse_pickles(folder: Path) -> None:
    """Raise if the folder's weights are pickles, which may run code when they are loaded.

    Raises:
        DataError: names the first one.
    """
    if pickles := sorted(p for ending in ("*.bin", "*.pt", "*.pth") for p in folder.glob(ending)):
        raise DataError(
            "the weights are a pickle, which may run code when it is loaded; KORE reads safetensors only",
            where=str(pickles[0]),
            hint="load it with the library that wrote it and save it with safe_serialization=True",
        )


def check_whole(path: Path) -> None:
    """Refuse a weight file that is not all there, by its header and size.

    Raises:
        DataError: a Git LFS pointer, a truncated file, or no safetensors file.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        if start + stream.read(len(_LFS) - len(start)) == _LFS:
            raise DataError("a Git LFS pointer, not the weights", where=str(path), hint="git lfs pull")
        length = int.from_bytes(start, "little")
        stream.seek(8)
        header = stream.read(length) if 0 < length <= size - 8 else b""
    try:
        entries = json.loads(header)
        ends = [int(v["data_offsets"][1]) for k, v in entries.items() if k != "__metadata__"]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError("truncated, or not a safetensors file", where=str(path), hint=_AGAIN) from error
    whole = 8 + length + max(ends, default=0)
    if size != whole:
        raise DataError(f"truncated: {size:,} of {whole:,} bytes", where=str(path), hint=_AGAIN)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        DataError: not whole, or with NaN or infinity.
    """
    from safetensors.torch import load_file

    check_whole(path)
    with loading("weights", path):
        tensors = load_file(path)
    check_finite(tensors.items(), path)
    return dict(tensors)


def check_finite(tensors: Iterable[tuple[str, Tensor]], where: Path) -> None:
    """Refuse weights with NaN or infinity.

    Raises:
        DataError: how many, and the first one's name.
    """
    import torch

    bad = [
        name
        for name, value in tensors
        if value.is_floating_point()
        and value.element_size() > 1  # 8-bit types hold no infinity, and have no minimum
        and value.numel()
        and not value.is_meta
        and not all(bool(torch.isfinite(end)) for end in torch.aminmax(value.detach()))
    ]
    if bad:
        raise DataError(
            f"NaN or infinity in {len(bad)} tensors, first {bad[0]}",
            where=str(where),
            hint="the file is damaged, or its training diverged: take an earlier one",
        )
