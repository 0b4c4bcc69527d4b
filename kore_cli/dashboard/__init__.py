"""The dashboard: watches a run folder and shows it. Never imports torch."""
