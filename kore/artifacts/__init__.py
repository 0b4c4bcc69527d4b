"""What runs and stages leave on disk: manifests, run folders, event logs."""
