"""The demo's items, old samples, questions and images: one archive in the package, unpacked when needed."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from functools import cache
from pathlib import Path

from platformdirs import user_cache_path

from kore.errors import DataError
from kore.io.files import hash_file

ARCHIVE = Path(__file__).with_name("data.zip")


@cache
def demo_data() -> Path:
    """The folder of the demo's data.

    The archive is unpacked once per version into the user's cache folder, or, where that cannot be written,
    into a temporary folder of this process.

    Raises:
        DataError: the archive is missing or damaged.
    """
    if not ARCHIVE.is_file():
        raise DataError("the demo's data is not in this installation", hint="install KORE again")
    folder = user_cache_path("kore") / f"demo-{hash_file(ARCHIVE)[:12]}"
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".demo-", dir=folder.parent))
    except OSError:
        folder = scratch = Path(tempfile.mkdtemp(prefix="kore-demo-"))
    _unpack(scratch)
    if scratch != folder:
        try:
            os.replace(scratch, folder)
        except OSError:  # another process was first
            shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _unpack(folder: Path) -> None:
    try:
        with zipfile.ZipFile(ARCHIVE) as archive:
            archive.extractall(folder)
    except (zipfile.BadZipFile, OSError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise DataError(f"cannot unpack the demo's data: {error}", where=str(ARCHIVE)) from error


def pack(folder: Path, archive: Path = ARCHIVE) -> None:
    """Write a folder as the archive: the same files give the same bytes."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as out:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            info = zipfile.ZipInfo(path.relative_to(folder).as_posix())
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            out.writestr(info, path.read_bytes())
