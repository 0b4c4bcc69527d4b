"""The kore chat command."""

from __future__ import annotations


def chat() -> None:
    """(being built)"""
