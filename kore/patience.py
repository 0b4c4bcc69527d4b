"""How long the processes of one launch wait for each other."""

from __future__ import annotations

from datetime import timedelta

PATIENCE = timedelta(days=1)
"""While the first makes every A of a large model, or asks a judge, the others do nothing: torch's own ten
minutes are too short. A process that died is noticed by the launcher, which ends the others."""
