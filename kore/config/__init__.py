"""Settings: the schema, and how profiles, flags and the environment are resolved."""
