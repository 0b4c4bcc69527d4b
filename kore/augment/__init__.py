"""KORE-AUGMENTATION: from items to knowledge trees, samples and evaluation questions (paper, 4.2.1).

The package is callable: `kore.augment(items, output)` is the function of the public API, which this package
of the same name would hide once it is imported.
"""

import sys
from types import ModuleType
from typing import Any

from kore.augment.run import Report, grow

__all__ = ["Report", "grow"]


class _CallablePackage(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Report:
        from kore.augment.from_items import augment  # reads EVOKE's records, which need this package

        return augment(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
