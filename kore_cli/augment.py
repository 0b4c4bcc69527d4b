"""The kore augment command."""

from __future__ import annotations


def augment() -> None:
    """(being built)"""
