"""A 7B calibrated, and its adapter made, in a few GB: a checkpoint of LLaVA-1.5-7B's exact shapes, end to end.

    python benchmarks/seven_billion.py            # about ten minutes and 14 GB of disk
    python benchmarks/seven_billion.py --quick    # two small layers, a minute

Random bfloat16 weights are written as sharded safetensors under the published names (all 32 layers,
vision tower, projector, head), with a real processor and random pictures. A child process then runs
    kore calibrate --profile llava-v1.5-7b --offload --layers 0-3 --memory 2GiB --factors ...
which sums the covariances of those layers over 24 samples (576 picture tokens each, more tokens than the
widest input has channels) and makes the adapter's frozen A with rank 235, weights coming from disk one
decoder layer, or one linear, at a time.

Memory is the child's RssAnon + RssShmem of /proc/PID/status, sampled every 20 ms: all that is resident
beyond the page cache. Pages of the checkpoint that are mapped (RssFile) are the kernel's to drop and are
reported beside. Seconds per stage are those between the files that the command writes. The checkpoint is
deleted at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import llava_shapes

RESULT = Path(__file__).parents[1] / "docs" / "results" / "constraint" / "seven_billion.json"
SHARD = 4_000_000_000  # bytes
POOL = 1 << 27  # random values that all weights are cut from
TARGET = 6_000_000_000
# the model's own names -> those of the published checkpoint
PUBLISHED = {
    "model.language_model.": "language_model.model.",
    "lm_head.": "language_model.lm_head.",
    "model.vision_tower.": "vision_tower.vision_model.",
    "model.multi_modal_projector.": "multi_modal_projector.",
}


def published(name: str) -> str:
    """The name under which the published checkpoint holds a tensor."""
    for own, other in PUBLISHED.items():
        if name.startswith(own):
            return other + name.removeprefix(own)
    return name


def write_checkpoint(folder: Path, *, quick: bool) -> dict[str, int]:
    """Write configuration, processor and random weights; returns parameters and bytes."""
    import torch
    from safetensors.torch import save_file
    from transformers import GenerationConfig

    from kore.models.architectures import skeleton

    folder.mkdir(parents=True)
    ready = llava_shapes.processor()
    small = {"width": 512, "inner": 1376, "layers": 6, "vocabulary": 512, "vision": 64}
    exact = {"width": 4096, "inner": 11008, "layers": 32, "vocabulary": 32064, "vision": 1024}
    shape = llava_shapes.config(ready.tokenizer, **(small if quick else exact))
    shape.architectures = ["LlavaForConditionalGeneration"]
    shape.save_pretrained(folder)
    ready.save_pretrained(folder)
    GenerationConfig(pad_token_id=0, eos_token_id=1).save_pretrained(folder)
    generator = torch.Generator().manual_seed(0)
    pool = (torch.randn(POOL, generator=generator) * 0.02).bfloat16()

    def tensor(name: str, size: torch.Size) -> torch.Tensor:
        if len(size) == 1:
            norm = name.endswith("weight") and ("norm" in name)
            return torch.full(size, float(norm), dtype=torch.bfloat16)
        count = size.numel()
        start = int(torch.randint(POOL - count + 1, (1,), generator=generator))
        return pool[start : start + count].view(size).clone()

    state = {
        name: value.shape
        for name, value in skeleton(folder).state_dict().items()
        if value.is_floating_point()
    }
    where: dict[str, str] = {}
    files: list[dict[str, torch.Tensor]] = []
    part: dict[str, torch.Tensor] = {}
    total = 0

    def close() -> None:
        name = f"model-{len(files) + 1:05d}.safetensors"
        files.append({})
        save_file(part, folder / name, metadata={"format": "pt"})
        where.update(dict.fromkeys(part, name))
        part.clear()

    for name, size in state.items():
        part[published(name)] = tensor(name, size)
        total += size.numel()
        if sum(2 * t.numel() for t in part.values()) > SHARD:
            close()
    close()
    index = {"metadata": {"total_size": 2 * total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return {"parameters": total, "bytes": 2 * total, "shards": len(files)}


def watched(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Run a command and sample its memory.

    Returns:
        stdout, peak (own bytes), with_files (mapped file pages in memory at that moment), high_water
        (VmHWM, mapped files included), seconds.
    """
    began = time.time()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    found = {"peak": 0, "files_then": 0, "high_water": 0}
    while process.poll() is None:
        try:
            text = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        row = {
            k: int(v.split()[0]) * 1024
            for k, _, v in (x.partition(":") for x in text.splitlines())
            if "kB" in v
        }
        own = row.get("RssAnon", 0) + row.get("RssShmem", 0)
        if own > found["peak"]:
            found.update(peak=own, files_then=row.get("RssFile", 0))
        found["high_water"] = max(found["high_water"], row.get("VmHWM", 0))
        time.sleep(0.02)
    output = process.communicate()[0]
    if process.returncode:
        sys.exit(f"kore calibrate failed with {process.returncode}")
    return {"output": output, "began": began, "seconds": time.time() - began, **found}


def stages(out: Path, began: float, layers: list[int]) -> dict[str, float]:
    """Seconds of each stage, from the times of the files that it leaves."""
    files = {f"layer {n}": out / f"layer-{n:04d}.safetensors" for n in layers}
    files["spectra"] = out / "spectra.json"
    files["adapter"] = next(out.glob("factors-*.safetensors"))
    found, before = {}, began
    for name, path in files.items():
        found[name] = path.stat().st_mtime - before
        before = path.stat().st_mtime
    return found


def main() -> int:
    """Write the checkpoint, run the command, report, delete."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", default="0-3")
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--work", type=Path, help="where the checkpoint is written; default: a temporary folder"
    )
    parser.add_argument("--quick", action="store_true", help="small widths, rank 29; writes no result")
    parser.add_argument("--json", action="store_true", help="print the object instead of the table")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.layers, arguments.samples = "0-1", 4
    work = Path(tempfile.mkdtemp(prefix="kore-7b-", dir=arguments.work))
    try:
        result = measure(arguments, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    result = {"command": " ".join(["python", "benchmarks/seven_billion.py", *sys.argv[1:]]), **result}
    if not arguments.quick:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1) if arguments.json else "\n".join(lines(result)))
    return 0 if result["met"] else 6


def measure(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Everything inside the temporary folder."""
    from safetensors import safe_open

    from kore.nullspace.covariance import Covariance
    from kore.nullspace.layer_selection import parse_layers

    began = time.monotonic()
    checkpoint = write_checkpoint(work / "model", quick=arguments.quick)
    written = time.monotonic() - began
    samples = llava_shapes.write_samples(work / "samples", arguments.samples)
    out = work / "covariance"
    command = [sys.executable, "-m", "kore_cli", "calibrate", "--profile", "llava-v1.5-7b", "--offload"]
    command += ["--model", str(work / "model"), "--samples", f"{samples}:{arguments.samples}"]
    command += ["--layers", arguments.layers, "--memory", "2GiB", "--factors", "--json", "-o", str(out)]
    if arguments.quick:
        command += ["--set", "adapter.rank=29"]
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, str(arguments.threads))}
    environment["PYTHONPATH"] = os.pathsep.join([str(llava_shapes.ROOT), environment.get("PYTHONPATH", "")])
    run = watched(command, environment)
    answer = json.loads(run["output"].splitlines()[-1])
    covariance = Covariance(out)
    layers = parse_layers(arguments.layers, 32)
    with safe_open(answer["factors"], framework="pt") as stream:
        shapes = {tuple(stream.get_slice(key).get_shape()) for key in stream.keys()}  # noqa: SIM118
        linears = len(list(stream.keys()))
    report = json.loads(Path(answer["factors"]).with_suffix(".json").read_text())
    widest = max(site.d_in for site in covariance.sites)
    return {
        "checkpoint": {**checkpoint, "seconds_to_write": written},
        "kore": "kore " + " ".join(command[3:]).replace(str(work), "TMP"),
        "layers": layers,
        "samples": arguments.samples,
        "tokens": answer["tokens"],
        "widest": widest,
        "threads": arguments.threads,
        "seconds": {**stages(out, run["began"], layers), "all": run["seconds"]},
        "memory": {name: run[name] for name in ("peak", "files_then", "high_water")},
        "target": TARGET,
        "adapter": {"linears": linears, "shapes": sorted(shapes), "sites": report},
        "met": run["peak"] < TARGET and (arguments.quick or answer["tokens"] > widest),
    }


def lines(result: dict[str, Any]) -> list[str]:
    """The table for people."""
    checkpoint, memory = result["checkpoint"], result["memory"]
    made = [
        f"checkpoint: {checkpoint['parameters']:,} parameters, {checkpoint['bytes'] / 1e9:.1f} GB in "
        f"{checkpoint['shards']} shards, written in {checkpoint['seconds_to_write']:.0f} s",
        f"{result['samples']} samples, {result['tokens']:,} tokens; the widest input has {result['widest']:,}",
        *(f"{name:10} {seconds:7.1f} s" for name, seconds in result["seconds"].items()),
        f"peak beyond the page cache {memory['peak'] / 1e9:.2f} GB (target {result['target'] / 1e9:g}), mapped "
        f"checkpoint pages then {memory['files_then'] / 1e9:.2f} GB, high-water mark with them "
        f"{memory['high_water'] / 1e9:.2f} GB",
    ]
    solvers = {row["solver"] for row in result["adapter"]["sites"]}
    return [*made, f"A of {result['adapter']['linears']} linears, solvers {', '.join(sorted(solvers))}"]


if __name__ == "__main__":
    raise SystemExit(main())
