"""KORE: teach a model new facts without making it forget what it knows.

The public API; see docs/python-api.md. Importing it is cheap: each name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from kore.version import __version__

if TYPE_CHECKING:
    from kore.api.adapter import freeze_a, get_kore_model
    from kore.api.calibrate import calibrate
    from kore.api.evaluate import Evaluation, evaluate
    from kore.api.export import Export, export
    from kore.api.inject import inject
    from kore.api.runs import RunResult, load_run
    from kore.api.train import train
    from kore.augment.from_items import augment
    from kore.errors import KoreError
    from kore.nullspace.collect import collect_covariance
    from kore.nullspace.covariance import Covariance

_MODULES = {
    "Covariance": "kore.nullspace.covariance",
    "Evaluation": "kore.api.evaluate",
    "Export": "kore.api.export",
    "KoreError": "kore.errors",
    "RunResult": "kore.api.runs",
    "augment": "kore.augment.from_items",
    "calibrate": "kore.api.calibrate",
    "collect_covariance": "kore.nullspace.collect",
    "evaluate": "kore.api.evaluate",
    "export": "kore.api.export",
    "freeze_a": "kore.api.adapter",
    "get_kore_model": "kore.api.adapter",
    "inject": "kore.api.inject",
    "load_run": "kore.api.runs",
    "train": "kore.api.train",
}

__all__ = [
    "Covariance",
    "Evaluation",
    "Export",
    "KoreError",
    "RunResult",
    "__version__",
    "augment",
    "calibrate",
    "collect_covariance",
    "evaluate",
    "export",
    "freeze_a",
    "get_kore_model",
    "inject",
    "load_run",
    "train",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'kore' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
