"""The kore eval command."""

from __future__ import annotations


def eval() -> None:
    """(being built)"""
