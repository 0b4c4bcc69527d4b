"""The kore study command."""

from __future__ import annotations


def study() -> None:
    """(being built)"""
