"""The kore calibrate command."""

from __future__ import annotations


def calibrate() -> None:
    """(being built)"""
