"""Questions a second: batched by length against one at a time, same model, same file, same answers.

The loop at batch 1 is how VLMEvalKit answers. Usage:

    python benchmarks/eval_throughput.py [--model kore-tiny] [--questions 128] [--batch 16] [-o FILE.json]

The demo's old questions (pictures, easy-vqa, countries) are written as a TSV and read back as `kore eval`
reads it; both ways answer it `--rounds` times in turn, and the best round of each counts. Seconds of the
processor stand beside seconds of the clock, for machines that others use too.
"""

from __future__ import annotations

import argparse
import base64
import csv
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def write_questions(path: Path, count: int) -> Path:
    """A TSV of the demo's retention questions, a picture each."""
    from kore.evaluation.demo_suites import demo_suites

    suites = [s.questions for s in demo_suites(names=("pictures", "easy-vqa", "countries"))]
    questions = [q for group in zip(*suites, strict=False) for q in group if q.images][:count]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(("index", "question", "answer", "image"))
        for index, question in enumerate(questions):
            data = base64.b64encode(Path(question.images[0]).read_bytes()).decode()
            writer.writerow((str(index), question.text, question.answers[0], data))
    return path


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Answer the file both ways."""
    import torch

    from kore.config.resolve import ModelSection
    from kore.evaluation.benchmark_suite import load_own
    from kore.evaluation.runner import build_prompt
    from kore.evaluation.suite_options import SuiteOptions
    from kore.models.generate import Engine
    from kore.models.load import load

    backbone = load(ModelSection(id=args.model, device=args.device, dtype=args.dtype))
    with tempfile.TemporaryDirectory() as folder:
        path = write_questions(Path(folder) / "questions.tsv", args.questions)
        suite = load_own(path, "vqa", SuiteOptions())
        prompts = [build_prompt(task, []) for task in suite.tasks()]
    single = Engine(backbone, batch=1, max_new_tokens=args.max_new_tokens)
    batched = Engine(backbone, batch=args.batch, max_new_tokens=args.max_new_tokens)
    single.answer(prompts[:2])  # first calls pay for set-up
    batched.answer(prompts[: args.batch])
    best = {"single": float("inf"), "batched": float("inf")}
    work = dict(best)
    answers: dict[str, list[str]] = {}
    for _ in range(args.rounds):
        for name, engine in (("single", single), ("batched", batched)):
            start, busy = time.perf_counter(), time.process_time()
            answers[name] = engine.answer(prompts)
            if backbone.device.type == "cuda":
                torch.cuda.synchronize()
            best[name] = min(best[name], time.perf_counter() - start)
            work[name] = min(work[name], time.process_time() - busy)
    same = sum(a == b for a, b in zip(answers["single"], answers["batched"], strict=True))
    return {
        "model": args.model,
        "device": str(backbone.device),
        "dtype": str(backbone.model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "questions": len(prompts),
        "batch": args.batch,
        "max_new_tokens": args.max_new_tokens,
        "per_second_single": round(len(prompts) / best["single"], 2),
        "per_second_batched": round(len(prompts) / best["batched"], 2),
        "times": round(best["single"] / best["batched"], 2),
        "times_processor": round(work["single"] / work["batched"], 2),
        "same_answers": same,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="kore-tiny")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--questions", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--max-new-tokens", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    found = measure(args)
    print(json.dumps(found))
    if args.out:
        args.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if found["dtype"] == "float32" and found["same_answers"] != found["questions"]:
        sys.exit("the answers differ between batch sizes in float32")


if __name__ == "__main__":
    main()
