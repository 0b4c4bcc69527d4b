"""The kore dashboard command."""

from __future__ import annotations


def dashboard() -> None:
    """(being built)"""
