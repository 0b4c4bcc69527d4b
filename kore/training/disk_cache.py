"""Encoded samples on disk, for data that does not fit into memory; shared by all workers of a machine."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

NAME = ".features"  # in the run folder while it trains


@dataclass(frozen=True)
class DiskCache:
    """The first `rows` samples of the data, each written when it is first encoded.

    Every pass reads all samples in another order, so dropping the oldest would keep none until they return;
    which samples are kept is fixed instead, and needs no agreement between workers.
    """

    folder: Path
    rows: int

    def get(self, index: int) -> dict[str, Tensor] | None:
        """A sample, if it is here."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if index < self.rows:
            with suppress(OSError, SafetensorError):
                return load_file(self._path(index))
        return None

    def put(self, index: int, row: dict[str, Tensor]) -> None:
        """Write a sample; without room on the disk it is encoded again in the next pass."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        if index >= self.rows:
            return
        temporary = self._path(index).with_suffix(f".{os.getpid()}")
        with suppress(OSError, SafetensorError):
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file({name: value.contiguous() for name, value in row.items()}, temporary)
            temporary.rename(self._path(index))

    def _path(self, index: int) -> Path:
        return self.folder / f"{index}.safetensors"
