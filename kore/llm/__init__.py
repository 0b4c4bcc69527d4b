"""Language models as teachers and judges: an API client, a local model, recorded replies, and their cache."""
