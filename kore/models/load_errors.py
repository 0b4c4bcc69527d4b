"""Errors of transformers, PEFT, safetensors and torch while loading, as DataErrors with file and remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kore.errors import DataError, KoreError

_KNOWN = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, ImportError)
_MISSING = ("No module named", "requires the", "library but it was not found")


@contextmanager
def loading(what: str, path: Path) -> Iterator[None]:
    """Errors of other libraries inside the block become a DataError; running out of memory does not.

    Args:
        what: the thing that is loaded, e.g. "model".
        path: its file or folder.

    Raises:
        DataError: with the path, the library's reason and what to do.
    """
    from safetensors import SafetensorError
    from torch import OutOfMemoryError

    try:
        yield
    except (KoreError, OutOfMemoryError):
        raise
    except (*_KNOWN, SafetensorError) as error:
        raise DataError(
            f"cannot load the {what}: {reason(error)}", where=str(path), hint=_remedy(what, error)
        ) from error


def reason(error: Exception) -> str:
    """The first line of an error that says something, or its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):
        return f"{lines[0]} {lines[1]}"
    return lines[0] if lines else type(error).__name__


def _remedy(what: str, error: Exception) -> str:
    if isinstance(error, ImportError) or any(part in str(error) for part in _MISSING):
        return "install the package that the message names"
    if "size mismatch" in str(error) or "ignore_mismatched_sizes" in str(error):
        return f"the {what}'s weights and its configuration are of different models"
    return f"check that the {what} is complete and its files are unchanged, or download it again"
