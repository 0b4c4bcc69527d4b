"""Pictures under their content hash: the same bytes are kept once, and nothing but a picture gets in."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from kore.errors import DataError
from kore.io.files import hash_bytes
from kore.io.images import opened

SUFFIX = {"JPEG": ".jpg", "PNG": ".png", "GIF": ".gif", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tiff"}
LARGEST = 20 << 20  # bytes
LEAST_SIDE = 8


@dataclass
class ImageStore:
    """A folder of pictures named by hash.

    Args:
        folder: where they lie.
        prefix: what a record's path to one starts with: ``images`` beside the records, or the absolute
        folder.
    """

    folder: Path
    prefix: str
    _known: dict[tuple[str, int, int], str] = field(default_factory=dict)

    def add_file(self, path: Path, where: str = "") -> str:
        """Take a local picture in; returns the path for records.

        Raises:
            DataError: missing or not a picture; names it.
        """
        try:
            stat = path.stat()
            known = (str(path), stat.st_mtime_ns, stat.st_size)
            if known not in self._known:
                _refuse_larger(stat.st_size, path, where)
                self._known[known] = self.add_bytes(
                    path.read_bytes(), f"{where}: {path}" if where else str(path)
                )
            return self._known[known]
        except OSError as error:
            raise _unreadable(path, error, where) from error

    def add_bytes(self, data: bytes, where: str = "") -> str:
        """Take a picture's bytes in; returns the path for records."""
        name = hash_bytes(data) + sniff(data, where)
        target = self.folder / name
        if not target.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{name}.{os.getpid()}.tmp")
            temporary.write_bytes(data)
            temporary.replace(target)
        return f"{self.prefix}/{name}"

    def path(self, record: str) -> Path:
        """The file behind a record's path."""
        return self.folder / Path(record).name


def _unreadable(path: Path, error: OSError, where: str) -> DataError:
    if isinstance(error, FileNotFoundError):
        hint = "relative paths start from the file of items, or --image-root"
        return DataError(f"no such picture: {path}", where=where or None, hint=hint)
    return DataError(f"cannot read the picture {path}: {error.strerror}", where=where or None)


def _refuse_larger(size: int, path: Path, where: str) -> None:
    if size > LARGEST:
        raise DataError(f"larger than {LARGEST >> 20} MiB: {path}", where=where or None)


def check_picture(path: Path, where: str = "") -> None:
    """Refuse what `ImageStore.add_file` would refuse.

    Raises:
        DataError: missing, too large or not a picture; names it.
    """
    try:
        _refuse_larger(path.stat().st_size, path, where)
        sniff(path.read_bytes(), f"{where}: {path}" if where else str(path))
    except OSError as error:
        raise _unreadable(path, error, where) from error


def sniff(data: bytes, where: str = "") -> str:
    """The suffix for a picture's bytes, by what they are and not by what they are called.

    Raises:
        DataError: not a picture, of a form that KORE does not take, broken, tiny or huge.
    """
    with opened(data, where or None) as image:
        kind, (width, height) = image.format or "", image.size
        if kind not in SUFFIX:
            raise DataError(
                f"{kind} images are not supported",
                where=where or None,
                hint=f"convert it to one of {', '.join(SUFFIX)}",
            )
        if min(width, height) < LEAST_SIDE:
            raise DataError(
                f"an image of {width} x {height} pixels is too small: at least {LEAST_SIDE} a side",
                where=where or None,
            )
        image.draft("RGB", (64, 64))
        image.load()
    return SUFFIX[kind]
