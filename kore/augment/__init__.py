"""KORE-AUGMENTATION: from items to knowledge trees, samples and evaluation questions (paper, 4.2.1)."""

from kore.augment.run import Report, grow

__all__ = ["Report", "grow"]
