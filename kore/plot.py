"""Pictures through matplotlib, where it is installed: no stage asks more of it than a canvas."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def pyplot() -> Any:
    """matplotlib's pyplot, drawing to files; None without the extra ``plots``."""
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot as found

    return found


def save(figure: Any, path: Path) -> Path:
    """Write a figure as PNG, atomically, and let it go."""
    from matplotlib import pyplot as drawing

    from kore.io.files import atomic_write

    with atomic_write(path, "wb") as stream:
        figure.savefig(stream, dpi=120, format="png", bbox_inches="tight")
    drawing.close(figure)
    return path
