"""Differential test against the original scorers; not part of the default run (`just oracle`)."""
