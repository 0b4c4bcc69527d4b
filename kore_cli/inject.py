"""The kore inject command."""

from __future__ import annotations


def inject() -> None:
    """(being built)"""
