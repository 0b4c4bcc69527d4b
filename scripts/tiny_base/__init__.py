"""Builds the embedded base kore-tiny and the demo data from nothing."""
