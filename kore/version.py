"""The version of KORE."""

__version__ = "0.1.0"
