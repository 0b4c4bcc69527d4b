"""The kore combine command."""

from __future__ import annotations


def combine() -> None:
    """(being built)"""
