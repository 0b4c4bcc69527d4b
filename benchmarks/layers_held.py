"""Peak memory of calibration against the decoder layers whose sums are held together.

    python benchmarks/layers_held.py            # eight layers of width 2048, a few minutes
    python benchmarks/layers_held.py --quick    # four small layers, seconds

Each row is a process of its own that loads the same model, takes the memory it then has as its zero, and
calibrates with a budget that lets it hold so many layers; the last rows read weights from disk layer by
layer (their zero is before anything of the model is loaded), and run PEFT's CorDA hooks (which need the
package attrs). The peak is that of RssAnon in /proc/self/status, sampled every 5 ms: memory of the
process's own, without files that the kernel may drop.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parents[1] / "docs" / "results" / "constraint" / "layers_held.json"


def own_memory() -> int:
    """Bytes of this process's anonymous memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


class Peak:
    """Watches this process's memory inside a with-block."""

    def __enter__(self) -> Peak:
        self.zero = self.top = own_memory()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.top = max(self.top, own_memory())

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def above(self) -> int:
        """Bytes of the peak above what there was at first."""
        return self.top - self.zero


def worker(arguments: argparse.Namespace) -> dict[str, Any]:
    """One row: `arguments.worker` is the number of layers to hold, offload or corda."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor  # noqa: F401 (before the zero)
    from transformers.models.llava import modeling_llava  # noqa: F401

    from kore.config.resolve import CalibrateSection, ModelSection
    from kore.data.read import read_records
    from kore.data.records import Sample
    from kore.models.load import load
    from kore.models.offload import open_skeleton
    from kore.nullspace.accumulator import values_held
    from kore.nullspace.calibrate import Calibration
    from kore.nullspace.memory_plan import parse_bytes

    torch.set_num_threads(arguments.threads)
    folder = Path(arguments.folder)
    section = ModelSection(id=str(folder / "model"), dtype="float32")
    samples = list(read_records(Sample, folder / "samples" / "samples.jsonl"))
    if arguments.worker == "corda":
        return corda(section, samples)
    offload = arguments.worker == "offload"
    sums = 8 * (3 * values_held(arguments.width) + values_held(arguments.inner))
    held = 1 if offload else int(arguments.worker)
    room = int((held + 0.5) * sums) + parse_bytes("64MiB") + len(samples) * 700 * arguments.width * 4
    budget = CalibrateSection(batch=1, memory="1TiB" if held == arguments.layers else str(room))
    began = time.perf_counter()
    if offload:
        with Peak() as peak:
            backbone, weights = open_skeleton(section)
            job = Calibration(backbone, samples, budget, weights=weights)
            job.run(folder / f"covariance-{arguments.worker}")
    else:
        backbone = load(section)
        job = Calibration(backbone, samples, budget)
        began = time.perf_counter()
        with Peak() as peak:
            job.run(folder / f"covariance-{arguments.worker}")
    return {
        "layers_held": job.plan.at_once,
        "weights": "one layer at a time" if offload else "all",
        "planned": job.plan.memory + (job.plan.weights if offload else 0),
        "peak": peak.above,
        "seconds": time.perf_counter() - began,
    }


def corda(section: Any, samples: Any) -> dict[str, Any]:
    """PEFT's hooks on all layers."""
    import torch
    from peft import LoraConfig
    from peft.tuners.lora.config import CordaConfig
    from peft.tuners.lora.corda import calib_cov_distribution

    from kore.models.families import language_linears
    from kore.models.load import load
    from kore.nullspace.batches import make_batches

    backbone = load(section)
    model: Any = backbone.model
    made = make_batches(backbone.processor, samples, batch=1, with_answers=False)
    config = LoraConfig(
        target_modules=backbone.family.targets, init_lora_weights="corda", corda_config=CordaConfig()
    )

    def run() -> None:
        with torch.no_grad():
            for index in range(len(made.groups)):
                model(**made.inputs(index), use_cache=False, logits_to_keep=1)

    run()
    began = time.perf_counter()
    with Peak() as peak:
        calib_cov_distribution(model, config, run, None, None)
    widths = [linear.in_features for linear in language_linears(model, backbone.family).values()]
    return {
        "layers_held": len(widths) // 7,
        "weights": "all, PEFT's CorDA hooks",
        "planned": 4 * sum(d * d for d in widths),
        "peak": peak.above,
        "seconds": time.perf_counter() - began,
    }


def main() -> None:
    """Run the rows, print, write."""
    import llava_shapes

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--inner", type=int, default=5504)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="512 and 1376, four layers; writes no result")
    parser.add_argument("--json", action="store_true", help="print the object instead of the table")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(worker(arguments)))
        return
    if arguments.quick:
        arguments.width, arguments.inner, arguments.layers, arguments.samples = 512, 1376, 4, 2
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"width": arguments.width, "inner": arguments.inner, "layers": arguments.layers}
        llava_shapes.write_model(Path(folder) / "model", **sizes)
        llava_shapes.write_samples(Path(folder) / "samples", arguments.samples)
        counts = [n for n in (1, 2, 4, 8, 16, 32) if n < arguments.layers] + [arguments.layers]
        for name in ("offload", *map(str, counts), "corda"):
            command = [sys.executable, __file__, "--worker", name, "--folder", folder]
            for key, value in {**sizes, "threads": arguments.threads}.items():
                command += [f"--{key}", str(value)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
    told = " ".join(["python", "benchmarks/layers_held.py", *sys.argv[1:]])
    result = {"command": told, **sizes, "samples": arguments.samples, "rows": rows}
    if not arguments.quick:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    if arguments.json:
        print(json.dumps(result, indent=1))
        return
    print(f"{'layers held':>11} {'planned MiB':>12} {'peak MiB':>9} {'seconds':>8}  weights in memory")
    for row in rows:
        planned, peak = row["planned"] / 2**20, row["peak"] / 2**20
        print(f"{row['layers_held']:11d} {planned:12.0f} {peak:9.0f} {row['seconds']:8.1f}  {row['weights']}")


if __name__ == "__main__":
    main()
