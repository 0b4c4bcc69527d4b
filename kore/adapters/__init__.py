"""LoRA adapters: wrapping, loading, saving, counting, exporting."""
