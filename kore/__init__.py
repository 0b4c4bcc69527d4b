"""KORE: teach a vision-language model new facts without making it forget what it knows."""

__version__ = "0.1.0"
