"""Studies over many runs. Nothing in the library imports this package."""
