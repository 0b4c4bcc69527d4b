"""The kore train command."""

from __future__ import annotations


def train() -> None:
    """(being built)"""
