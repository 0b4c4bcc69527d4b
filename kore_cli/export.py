"""The kore export command."""

from __future__ import annotations


def export() -> None:
    """(being built)"""
