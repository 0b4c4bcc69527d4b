"""kore show for covariances: one line per site, warnings, held-out interference."""

from __future__ import annotations

from pathlib import Path

from kore_cli.output import Output

_COLUMNS = (
    "site",
    "d_in",
    "tokens",
    "trace",
    "effective_rank",
    "rank",
    "energy_smallest",
    "condition",
    "warning",
)


def show(folder: Path, output: Output, rank: int | None = None) -> None:
    """Print a covariance folder: one row a site, warnings, interference on held-out samples.

    Args:
        rank: the number of smallest directions whose energy is summed; default: a sixteenth of each
            width, or the rank of the folder's spectra.
    """
    from kore.nullspace.report import report

    value = report(folder, rank)
    if not output.human:
        output.record(value)
        return
    output.line(
        f"covariance of {value['label']}: {value['tokens']:,} tokens, {len(value['sites'])} sites, "
        f"model {value['model']}" + (f", after {len(value['lineage'])} adapters" if value["lineage"] else "")
    )
    output.table(value["sites"], _COLUMNS)
    for line in value["warnings"]:
        output.warn(line)
    if value["interference"]:
        means = value["interference"]["summary"]
        output.line(
            "change of held-out outputs per unit of B: "
            f"KORE {means['kore']:.3g}, random A {means['random']:.3g}, LoRA's A {means['lora']:.3g}"
        )
