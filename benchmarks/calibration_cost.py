"""What calibration costs over a plain forward pass of the same samples, with PEFT's CorDA hook beside it.

    python benchmarks/calibration_cost.py            # one LLaMA-7B-shaped layer, a few minutes
    python benchmarks/calibration_cost.py --quick    # a small layer, seconds

The model is a LLaVA of one decoder layer (4096 wide, 11008 inside) in float32 with a small vision tower
and real picture tokens; its head runs on the last token only, so that the pass is the layer's own. The
works are timed in turns, and the fastest round of each counts; with one thread (the default) the seconds are the
process's own, so that a busy machine does not count:
  forward   the batches that calibration uses
  kore      `Calibration.run`: forward pass, sums of the four distinct inputs, and apart from it the
            packing and writing of the result, which is paid once however many samples there are
  corda     PEFT's `calib_cov_distribution`: seven hooks, one sample at a time, as it demands, beside a
            plain forward pass one sample at a time
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parents[1] / "docs" / "results" / "constraint" / "calibration_cost.json"


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Time the four in turns, and what the two ways hold."""
    import llava_shapes
    import torch
    from peft import LoraConfig
    from peft.tuners.lora.config import CordaConfig
    from peft.tuners.lora.corda import calib_cov_distribution

    from kore.config.resolve import CalibrateSection, ModelSection
    from kore.data.read import read_records
    from kore.data.records import Sample
    from kore.models.families import language_linears
    from kore.models.load import load
    from kore.nullspace.batches import make_batches
    from kore.nullspace.calibrate import Calibration

    clock = time.process_time if arguments.threads == 1 else time.perf_counter

    class Timed(Calibration):
        writing = 0.0

        def _write(self, *args: Any) -> Any:
            began = clock()
            try:
                return super()._write(*args)
            finally:
                self.writing += clock() - began

    torch.set_num_threads(arguments.threads)
    llava_shapes.write_model(folder / "model", width=arguments.width, inner=arguments.inner)
    path = llava_shapes.write_samples(folder / "samples", arguments.samples)
    samples = list(read_records(Sample, path))
    backbone = load(ModelSection(id=str(folder / "model"), dtype="float32"))
    model: Any = backbone.model
    job = Timed(backbone, samples, CalibrateSection(batch=arguments.batch, memory="16GiB"))
    one_by_one = make_batches(backbone.processor, samples, batch=1, with_answers=False)
    batches = {
        name: [made.inputs(i) for i in range(len(made.groups))]
        for name, made in (("batched", job.batches), ("single", one_by_one))
    }
    linears = language_linears(model, backbone.family)

    def forward(name: str) -> None:
        with torch.no_grad():
            for row in batches[name]:
                model(**row, use_cache=False, logits_to_keep=1)

    def kore() -> None:
        shutil.rmtree(folder / "covariance", ignore_errors=True)
        job.run(folder / "covariance")

    def corda() -> None:
        config = LoraConfig(
            target_modules=backbone.family.targets, init_lora_weights="corda", corda_config=CordaConfig()
        )
        calib_cov_distribution(model, config, lambda: forward("single"), None, None)

    works: dict[str, Callable[[], None]] = {
        "forward": lambda: forward("batched"),
        "kore": kore,
        "forward_single": lambda: forward("single"),
        "corda": corda,
    }
    forward("batched")  # once, so that no buffer is made for the first time while the clock runs
    rounds: list[dict[str, float]] = []
    for _ in range(arguments.repeats):
        row: dict[str, float] = {}
        for name, work in works.items():
            job.writing = 0.0
            began = clock()
            work()
            row[name] = clock() - began
            if name == "kore":
                row["kore_writing"] = job.writing
                row["kore_sums"] = row["kore"] - job.writing
        rounds.append(row)
    best = {name: min(row[name] for row in rounds) for name in rounds[0]}
    widths = [linear.in_features for linear in linears.values()]
    return {
        "threads": arguments.threads,
        "width": arguments.width,
        "inner": arguments.inner,
        "samples": len(samples),
        "tokens": job.batches.tokens,
        "seconds": best,
        "ratio": {
            "kore": best["kore"] / best["forward"],
            "kore sums": best["kore_sums"] / best["forward"],
            "corda": best["corda"] / best["forward_single"],
        },
        "rounds": rounds,
        "sums_bytes": {"kore": job.plan.memory, "corda": 4 * sum(d * d for d in widths)},
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The table for people."""
    seconds, ratio = found["seconds"], found["ratio"]
    return [
        f"{found['samples']} samples, {found['tokens']:,} tokens, one layer of width {found['width']} and "
        f"{found['inner']}, float32, {found['threads']} threads",
        f"forward pass, batched      {seconds['forward']:7.2f} s",
        f"kore, sums                 {seconds['kore_sums']:7.2f} s  {ratio['kore sums']:.2f} forward passes",
        f"kore, with its writing     {seconds['kore']:7.2f} s  {ratio['kore']:.2f}",
        f"forward pass, one by one   {seconds['forward_single']:7.2f} s",
        f"PEFT's CorDA hooks         {seconds['corda']:7.2f} s  {ratio['corda']:.2f} of those, "
        f"{seconds['corda'] / seconds['forward']:.2f} of the batched ones",
    ]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--inner", type=int, default=11008)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="1024 and 2816, 4 samples; writes no result")
    parser.add_argument("--json", action="store_true", help="print the object instead of the table")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.width, arguments.inner, arguments.samples, arguments.batch = 1024, 2816, 4, 2
    with tempfile.TemporaryDirectory() as folder:
        found = measure(arguments, Path(folder))
    command = " ".join(["python", "benchmarks/calibration_cost.py", *sys.argv[1:]])
    result = {"command": command, **found}
    if not arguments.quick:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1) if arguments.json else "\n".join(lines(found)))


if __name__ == "__main__":
    main()
