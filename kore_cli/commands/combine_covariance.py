"""kore combine for covariances."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kore_cli.output import Output


def combine(
    folders: Sequence[Path],
    out: Path,
    output: Output,
    *,
    weights: Sequence[float] | None = None,
    restart: bool = False,
) -> None:
    """Sum covariances and say what came out."""
    from kore.nullspace.combine import combine as sum_up

    with output.steps("combine") as progress:
        made = sum_up(folders, out, weights=weights, restart=restart, progress=progress)
    if left := made.manifest.facts.get("left_out"):
        output.warn(f"{len(left)} sites are not in all of them and are left out (first {left[0]})")
    output.result(
        {
            "out": str(made.folder),
            "label": made.label,
            "sites": len(made.sites),
            "tokens": sum(s.tokens for s in made.sites if s.name == made.sites[0].name),
            "model": made.model,
            "fingerprint": made.manifest.fingerprint,
        }
    )
