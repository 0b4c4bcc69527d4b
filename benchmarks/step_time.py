"""Step time and peak memory of kore against PEFT LoRA: same trainable count, same data, same loop.

    python benchmarks/step_time.py --out docs/results/step_time.json
    python benchmarks/step_time.py --model FOLDER --batch 8       # a model of your own, on a GPU too

Without --model a LLaVA is built with the proportions of LLaVA-1.5-7B's language model at a quarter of its
width: 1024 wide, 2752 inside the MLP, vocabulary 32000, random weights; rank 59 is to 1024 what the paper's
235 is to 4096. Each method runs in a process of its own, one after the other, repeated in turns; told are the
median time of a step, the peak of memory above the loaded model, and the bytes that autograd keeps between
forward and backward pass. On a GPU memory is the allocator's peak; on a CPU the process's, sampled.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any


def worker(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train one method for a few steps; returns what it took."""
    import psutil
    import torch
    from PIL import Image

    from kore.artifacts.events import EventWriter
    from kore.artifacts.run import Run
    from kore.config.resolve import ModelSection, TrainSection
    from kore.data.records import Sample
    from kore.methods.registry import make_method
    from kore.models.families import language_linears
    from kore.models.load import load
    from kore.training.run import train

    torch.set_num_threads(arguments.threads)
    backbone = load(ModelSection(id=arguments.model))
    folder = Path(arguments.folder)
    samples = []
    for i in range(arguments.batch * 2):
        path = folder / f"{i % 8}.png"
        if not path.exists():
            Image.effect_noise((64, 64), 80).convert("RGB").save(path)
        turns = [
            {
                "from": "human",
                "value": "<image>\n" + "What is the capital of the country? " * arguments.words,
            },
            {"from": "gpt", "value": "Lima " * 8},
        ]
        samples.append(Sample.model_validate({"id": str(i), "image": str(path), "conversations": turns}))
    linears = language_linears(backbone.model, backbone.family)
    made = torch.Generator().manual_seed(0)
    factors = None
    if arguments.worker == "kore":
        factors = {
            n: torch.randn(arguments.rank, m.in_features, generator=made) / m.in_features**0.5
            for n, m in linears.items()
        }
    section = TrainSection(
        method=arguments.worker,
        lr=1e-4,
        batch=arguments.batch,
        max_steps=arguments.steps,
        epochs=1e6,
        max_length=4096,
        save_steps=10**6,
    )
    process = psutil.Process()
    before = process.memory_info().rss
    peak, stop = [before], threading.Event()

    def sample() -> None:
        while not stop.wait(0.005):
            peak[0] = max(peak[0], process.memory_info().rss)

    kept, tokens = saved_bytes(backbone, samples, section, arguments, factors)
    del backbone
    gc.collect()
    backbone = load(ModelSection(id=arguments.model))
    for parameter in backbone.model.parameters():
        parameter.detach().sum()  # weights are mapped from their file: read them, so that they are counted here
    before = peak[0] = process.memory_info().rss
    cuda = backbone.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    run = Run(folder / f"run-{arguments.worker}-{time.time_ns()}")
    # on a CPU the process's own time, so that a busy machine does not count
    clock = time.perf_counter if cuda else time.process_time
    marks: list[float] = []
    with EventWriter(run.folder) as events:
        result = train(
            backbone,
            samples,
            section,
            make_method(arguments.worker),
            run,
            events,
            factors=factors,
            rank=arguments.rank,
            progress=lambda *_: marks.append(clock()),
        )
    stop.set()
    thread.join()
    gaps = [b - a for a, b in itertools.pairwise(marks)][2:]
    top = torch.cuda.max_memory_allocated() if cuda else peak[0]
    return {
        "method": arguments.worker,
        "trainable": result.trainable,
        "step_s": statistics.median(gaps),
        "peak_bytes": top - before,
        "kept_bytes": kept,
        "tokens": tokens,
        "device": str(backbone.device),
    }


def saved_bytes(
    backbone: Any, samples: Any, section: Any, arguments: argparse.Namespace, factors: Any
) -> tuple[int, int]:
    """Bytes of distinct tensors that autograd keeps for the backward pass, parameters left out; tokens."""
    import torch

    from kore.methods.registry import make_method
    from kore.models.collate import collate
    from kore.training.run import prepare

    work = prepare(
        backbone, samples, section, make_method(arguments.worker), factors=factors, rank=arguments.rank
    )
    work.attach()
    model = backbone.model.train()
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = collate([work.features[i] for i in range(arguments.batch)], work.features.encoder.pad_id)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = model(**{k: v.to(backbone.device) for k, v in batch.items()}).loss
    total = sum(seen.values())
    del loss
    return total, batch["input_ids"].numel()


def model(folder: Path, width: int, layers: int) -> str:
    """A LLaVA of some size, with random weights."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.tiny import llava

    heads = max(1, width // 128)
    return str(
        llava(
            folder / "model",
            layers=layers,
            width=width,
            intermediate_size=width * 2752 // 1024,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            vocab_size=32000,
            max_position_embeddings=4096,
        )
    )


def main() -> None:
    """Compare and print one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--rank", type=int, default=59)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--words", type=int, default=72, help="repetitions of a question of eight words")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the JSON there, too")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--worker", choices=["kore", "lora"])
    parser.add_argument("--folder")
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(worker(arguments)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        chosen = arguments.model or model(folder, arguments.width, arguments.layers)
        found: dict[str, list[dict[str, Any]]] = {"lora": [], "kore": []}
        for _ in range(arguments.repeats):
            for method in found:
                names = ("rank", "batch", "words", "steps", "threads")
                settings = [x for n in names for x in (f"--{n}", str(getattr(arguments, n)))]
                command = [
                    sys.executable,
                    __file__,
                    "--worker",
                    method,
                    "--model",
                    chosen,
                    "--folder",
                    temporary,
                ]
                done = subprocess.run([*command, *settings], capture_output=True, text=True, check=False)
                if done.returncode:
                    sys.exit(done.stderr)
                found[method].append(json.loads(done.stdout.splitlines()[-1]))
    rows = {
        m: {**r[0], "step_s": min(x["step_s"] for x in r), "peak_bytes": min(x["peak_bytes"] for x in r)}
        for m, r in found.items()
    }
    ratio = {
        k: rows["kore"][k] / rows["lora"][k] for k in ("step_s", "peak_bytes", "kept_bytes", "trainable")
    }
    shape = {
        n: getattr(arguments, n) for n in ("width", "layers", "rank", "batch", "steps", "repeats", "threads")
    }
    value = {
        "command": " ".join(["python", *sys.argv]),
        "shape": shape,
        "rows": rows,
        "kore_over_lora": ratio,
    }
    text = json.dumps(value, indent=2)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
