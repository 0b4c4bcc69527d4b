"""Time of one pass over samples with large JPEGs: KORE, KORE as it was before, and transformers' Trainer.

    python benchmarks/train_throughput.py --out docs/results/train_throughput.json           # hours on a CPU
    python benchmarks/train_throughput.py --quick --out docs/results/train_throughput.json   # minutes

512 samples with 1024x768 JPEGs (quick: 8, images limited to about 90,000 pixels) on a Qwen2.5-VL of random
weights and about 50 M parameters, LoRA on the same linears, same order, same batch. Rows:

    kore      workers and loss path by default
    before    no workers, logits of all tokens
    trainer   transformers' Trainer, images processed by its collator on the training thread

Each row runs in a process of its own, in turns, and the fastest of its runs counts; the clock starts before the
run is prepared. The quick form takes one thread and counts the process's own time, so that a busy machine does
not count; it starts no workers and shows the loss and the fixed costs only. Only ratios are written.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROWS = ("kore", "before", "trainer")
BATCH, MICRO, RANK = 8, 2, 8


def build(folder: Path, samples: int) -> None:
    """Write the model and the samples."""
    import torch
    from PIL import Image
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from kore.io.jsonl import write_jsonl
    from tests.tiny import qwen

    small = qwen(folder / "tokens")
    config = Qwen2_5_VLConfig.from_pretrained(small)
    text, vision = config.text_config, config.vision_config
    text.update(
        {
            "vocab_size": 32_000, "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 6, "layer_types": ["full_attention"] * 6,
            "num_attention_heads": 8, "num_key_value_heads": 2, "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [16, 8, 8]},
        }
    )  # fmt: skip
    vision.update({"depth": 4, "hidden_size": 128, "intermediate_size": 256, "num_heads": 4})
    vision.update({"out_hidden_size": 512, "fullatt_block_indexes": [3]})
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.save_pretrained(folder / "model")
    for path in small.iterdir():
        if not (folder / "model" / path.name).exists() and path.suffix != ".safetensors":
            (folder / "model" / path.name).write_bytes(path.read_bytes())
    rows = []
    for i in range(samples):
        noise = Image.effect_noise((256, 192), 40 + i % 50).convert("RGB").resize((1024, 768))
        noise.save(folder / f"{i}.jpg", quality=90)
        turns = [
            {"from": "human", "value": "<image>\nWhat is shown, and where was it taken?"},
            {"from": "gpt", "value": "A tower in Lima, seen from the sea. " * (1 + i % 3)},
        ]
        rows.append({"id": f"s{i}", "image": f"{i}.jpg", "conversations": turns})
    write_jsonl(folder / "samples.jsonl", rows)


def worker(row: str, folder: Path, max_pixels: int, quick: bool, threads: int) -> dict[str, Any]:
    """One pass; returns its seconds and loss."""
    import torch

    from kore.artifacts.events import EventWriter
    from kore.artifacts.run import Run
    from kore.config.resolve import ModelSection, TrainSection
    from kore.methods.registry import make_method
    from kore.models.answer_loss import AnswerLoss, LossPath
    from kore.models.load import load
    from kore.training.dataset import read_training
    from kore.training.run import prepare, train

    torch.set_num_threads(threads)
    samples = read_training(folder / "samples.jsonl")
    backbone = load(ModelSection(id=str(folder / "model"), max_pixels=max_pixels))
    more: dict[str, Any] = {} if row == "kore" else {"workers": 0}
    section = TrainSection(
        method="lora", lr=1e-3, batch=BATCH, micro_batch=MICRO, epochs=1, max_length=4096, save_steps=10**6,
        group_by_length=False, **more,
    )  # fmt: skip
    if row == "before":
        AnswerLoss._first_equal = lambda *_: LossPath.FULL  # type: ignore[method-assign]
    method = make_method("lora")
    clock = time.process_time if quick else time.perf_counter
    start = clock()
    if row == "trainer":
        work = prepare(backbone, samples, section, method, rank=RANK)
        work.attach()
        return {"loss": plain(work, section), "seconds": clock() - start}
    run = Run(folder / f"run-{row}-{time.time_ns()}")
    with EventWriter(run.folder) as events:
        result = train(backbone, samples, section, method, run, events, rank=RANK)
    return {"seconds": clock() - start, "loss": result.loss}


def plain(work: Any, section: Any) -> float:
    """transformers' Trainer on the model with its adapter; its collator processes the images."""
    from transformers import Trainer, TrainingArguments

    from kore.models.collate import collate
    from kore.training.sampler import draw

    encoder, samples = work.features.encoder, work.features.samples
    order = draw(len(samples), work.steps, BATCH, seed=section.seed)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=work.backbone.model,
            args=TrainingArguments(
                output_dir=folder,
                max_steps=work.steps,
                per_device_train_batch_size=MICRO,
                gradient_accumulation_steps=BATCH // MICRO,
                learning_rate=section.lr,
                lr_scheduler_type="cosine",
                warmup_steps=round(section.warmup * work.steps),
                use_cpu=work.backbone.device.type == "cpu",
                train_sampling_strategy="sequential",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                remove_unused_columns=False,
                label_names=["labels"],
            ),
            train_dataset=[samples[i].sample for i in order],
            data_collator=lambda rows: collate([encoder.training(r) for r in rows], encoder.pad_id),
        )
        trainer.model_accepts_loss_kwargs = True  # the mean over the step's tokens, as in KORE
        return float(trainer.train().training_loss)


def main() -> None:
    """Run all rows and print their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--worker", nargs=3, metavar=("ROW", "FOLDER", "PIXELS"))
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.threads = 1
    if arguments.worker:
        row, place, pixels = arguments.worker
        print(json.dumps(worker(row, Path(place), int(pixels), arguments.quick, arguments.threads)))
        return
    samples, pixels = (8, 90_000) if arguments.quick else (512, 1_000_000)
    runs: dict[str, list[dict[str, Any]]] = {row: [] for row in ROWS}
    with tempfile.TemporaryDirectory() as name:
        build(Path(name), samples)
        for _ in range(arguments.repeats):
            for row in ROWS:
                command = [sys.executable, __file__, "--threads", str(arguments.threads)]
                command += ["--quick"] * arguments.quick + ["--worker", row, name, str(pixels)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                runs[row].append(json.loads(done.stdout.splitlines()[-1]))
    best = {row: min(one["seconds"] for one in ones) for row, ones in runs.items()}
    result = {
        "command": f"python benchmarks/train_throughput.py{' --quick' * arguments.quick}",
        "samples": samples,
        "threads": arguments.threads,
        "repeats": arguments.repeats,
        "time_over_kore": {row: round(best[row] / best["kore"], 3) for row in ROWS},
        "loss": {row: round(runs[row][0]["loss"], 4) for row in ROWS},
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
