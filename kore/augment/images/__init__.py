"""Pictures: where they come from, whether they are safe, how alike they are, and where they are kept."""
