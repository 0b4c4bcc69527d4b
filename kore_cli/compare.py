"""The kore compare command."""

from __future__ import annotations


def compare() -> None:
    """(being built)"""
