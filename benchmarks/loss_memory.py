"""Peak memory of one training step with the loss on answer tokens against the model's own loss.

    python benchmarks/loss_memory.py --out docs/results/loss_memory.json

A Llama of random weights with one narrow layer and a vocabulary of 152k, so that the logits decide: one
sample of 2,048 tokens, of which the last quarter, and then all, are an answer. Each measurement runs in a
process of its own. On a CPU, memory is what the allocator hands out between the start and the end of the
step (torch.profiler); on a GPU, the allocator's own peak. Weights are not counted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

VOCABULARY, TOKENS, WIDTH = 151_936, 2048, 256


def worker(path: str, answer: int) -> dict[str, Any]:
    """One step; returns its peak, time and loss."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from kore.models.answer_loss import AnswerLoss

    torch.manual_seed(0)
    torch.set_num_threads(2)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(device).train()
    model.get_input_embeddings().requires_grad_(False)
    ids = torch.randint(5, VOCABULARY, (1, TOKENS), device=device)
    labels = ids.clone()
    labels[:, : TOKENS - answer] = -100
    context = AnswerLoss(model).active(labels) if path == "answer" else nullcontext()
    start = time.perf_counter()
    with Peak(device) as peak:
        with context:
            loss = model(input_ids=ids, labels=labels, num_items_in_batch=answer).loss
        loss.backward()
    return {"peak_bytes": peak.bytes, "loss": float(loss.detach()), "seconds": time.perf_counter() - start}


class Peak:
    """Largest total of live tensors inside the block, beyond those at its start."""

    def __init__(self, device: str) -> None:
        import torch

        self.cuda = device == "cuda"
        self.bytes = 0
        self._profile = torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
        )

    def __enter__(self) -> Peak:
        import torch

        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            self._profile.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        import torch

        if self.cuda:
            self.bytes = torch.cuda.max_memory_allocated() - self._before
            return
        self._profile.__exit__(*error)
        held = 0
        for event in self._profile.profiler.kineto_results.events():
            if event.name() == "[memory]":
                held += event.nbytes()
                self.bytes = max(self.bytes, held)


def main() -> None:
    """Measure both losses, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", nargs=2, metavar=("PATH", "ANSWER"))
    arguments = parser.parse_args()
    if arguments.worker:
        path, answer = arguments.worker
        print(json.dumps(worker(path, int(answer))))
        return
    cases = []
    for answer in (TOKENS // 4, TOKENS):
        plain, own = (_run(path, answer) for path in ("plain", "answer"))
        cases.append(
            {
                "answer_tokens": answer,
                "peak_ratio": round(own["peak_bytes"] / plain["peak_bytes"], 4),
                "peak_mib": {"plain": plain["peak_bytes"] >> 20, "answer": own["peak_bytes"] >> 20},
                "loss_difference": abs(own["loss"] - plain["loss"]) / plain["loss"],
                "time_ratio": round(own["seconds"] / plain["seconds"], 2),
            }
        )
    command = "python benchmarks/loss_memory.py --out docs/results/loss_memory.json"
    result = {
        "command": command,
        "vocabulary": VOCABULARY,
        "tokens": TOKENS,
        "hidden_size": WIDTH,
        "cases": cases,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


def _run(path: str, answer: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--worker", path, str(answer)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    value: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return value


if __name__ == "__main__":
    main()
