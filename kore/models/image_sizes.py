"""Find images whose size a model's processor refuses, before the model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from PIL import Image

from kore.errors import DataError, Faults
from kore.io.images import image_size

_ASPECT, _SIDE = 20, 28  # processors are tried on images beyond these alone; none refuses what lies within


def check_sizes(images: Iterable[tuple[str, str]], processor: Callable[[], Any]) -> None:
    """Try the image processor on a blank image of each unusual size.

    Args:
        images: pairs of path and place. processor: loads it; called only where there is an unusual size.

    Raises:
        DataError: every image that it refuses, with its place, size and the processor's reason.
    """
    unusual: dict[tuple[int, int], list[tuple[str, str]]] = {}
    for path, where in dict(images).items():
        size = image_size(path, where)
        if min(size) < _SIDE or max(size) > _ASPECT * min(size):
            unusual.setdefault(size, []).append((path, where))
    prepare = getattr(processor(), "image_processor", None) if unusual else None
    if prepare is None:
        return
    faults = Faults()
    for size, places in unusual.items():
        try:
            prepare(images=[Image.new("RGB", size)], return_tensors="pt")
        except (ValueError, TypeError, ZeroDivisionError, IndexError, RuntimeError, AttributeError) as error:
            for path, where in places:
                faults.add(refused(size, error, where, path))
    faults.check()


def refused(size: tuple[int, int], error: Exception, where: str | None, path: str = "") -> DataError:
    """The error for an image of a size that a processor does not take."""
    of = f": {path}" if path else ""
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return DataError(
        f"the model's processor refuses an image of {size[0]} x {size[1]} pixels{of}: {reason}",
        where=where,
        hint="crop or pad the image, or leave it out",
    )
