"""The kore show command."""

from __future__ import annotations


def show() -> None:
    """(being built)"""
