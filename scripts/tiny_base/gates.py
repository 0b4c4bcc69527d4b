"""Measures the base on the demo's own questions, and says whether it is fit for use."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

from kore.data.records import Question
from kore.evaluation.questions import judge
from scripts.tiny_base.dataset import EVAL, open_picture, read_lines
from scripts.tiny_base.tokens import ASSISTANT, IMAGE, USER

FACTS = ("name", "capital", "continent", "currency", "language")
AT_LEAST = {
    "old facts with image": 0.85,
    "old facts text-only": 0.85,
    "yes/no": 0.85,
    "multiple choice": 0.80,
    "easy-vqa": 0.85,
}
AT_MOST = {"new names": 0.05, "new capitals": 0.05}


@torch.no_grad()
def answers(model: Any, processor: Any, rows: list[dict[str, Any]], folder: Path) -> list[str]:
    """Greedy short answers, in batches of questions with and without pictures."""
    found: dict[int, str] = {}
    for pictured in (True, False):
        chosen = [k for k, row in enumerate(rows) if (row["image"] is not None) == pictured]
        for start in range(0, len(chosen), 100):
            part = chosen[start : start + 100]
            mark = f"{IMAGE}\n" if pictured else ""
            texts = [f"{USER} {mark}{rows[k]['text']} {ASSISTANT}" for k in part]
            images = [open_picture(folder, rows[k]["image"]) for k in part] if pictured else None
            inputs = processor(text=texts, images=images, return_tensors="pt", padding=True)
            inputs.pop("token_type_ids", None)
            out = model.generate(**inputs, max_new_tokens=16, do_sample=False)
            told = out[:, inputs["input_ids"].shape[1] :]
            for k, text in zip(part, processor.batch_decode(told, skip_special_tokens=True), strict=True):
                found[k] = text.strip()
    return [found[k] for k in range(len(rows))]


def new_questions(data: Path) -> list[dict[str, Any]]:
    """Name and capital of every new country, asked about its evaluation pictures."""
    rows: list[dict[str, Any]] = []
    for item in read_lines(data / "items.jsonl"):
        capital = item["facts"]["capital"]
        for k in range(EVAL):
            picture = f"images_eval/{item['title']} {k + 1}.png"
            for kind, text, answer in (
                ("new names", "Which country does this flag belong to?", item["title"]),
                ("new capitals", "What is the capital of the country in the image?", capital),
            ):
                rows.append({"image": picture, "text": text, "answer": answer, "type": kind})
    return rows


def right(row: dict[str, Any], told: str) -> bool:
    """Whether an answer counts, by the rules of ``kore eval``."""
    question = Question(question_id="gate", text=row["text"], answer=row["answer"])
    return judge(told, question)[0] > 0


def gate_of(suite: str, kind: str) -> str:
    """The gate that a question counts for; of the text suite none but itself does, choices and all."""
    if kind.endswith("choice"):
        return "multiple choice" if suite != "text" else suite
    if suite == "countries":
        if kind.endswith("yes-no"):
            return "yes/no"
        return "old facts text-only" if kind.startswith("text-") else "old facts with image"
    return {"yes-no": "yes/no"}.get(suite, suite)


def measure(
    model: Any, processor: Any, data: Path, split: str = "test", sample: int | None = None
) -> dict[str, float]:
    """Share of right answers by gate, by suite and by type of question."""
    rows: list[dict[str, Any]] = []
    for path in sorted((data / "suites").glob("*.jsonl")):
        part = [row for row in read_lines(path) if row["split"] == split]
        if sample is not None:
            part = random.Random(0).sample(part, min(sample, len(part)))
        for row in part:
            image = row["image"]
            fixed = image.removeprefix("../") if image else None
            rows.append({**row, "image": fixed, "suite": path.stem})
    for row in read_lines(data / "held_out_wordings.jsonl")[:sample]:
        rows.append({**row, "suite": "held-out wordings"})
    fresh = new_questions(data)
    if sample is not None:
        fresh = random.Random(0).sample(fresh, min(sample, len(fresh)))
    rows += [{**row, "suite": "new"} for row in fresh]
    told = answers(model, processor, rows, data)
    counts: dict[str, list[bool]] = {}
    for row, text in zip(rows, told, strict=True):
        hit = right(row, text)
        suite, kind = row["suite"], row["type"]
        keys = {f"suite {suite}", f"type {suite} {kind}"}
        keys.add(kind if suite == "new" else gate_of(suite, kind))
        for key in keys:
            counts.setdefault(key, []).append(hit)
    return {key: round(sum(hits) / len(hits), 4) for key, hits in sorted(counts.items())}


def verdicts(measured: dict[str, float]) -> dict[str, bool]:
    """Whether each gate is met."""
    found = {name: measured.get(name, 0.0) >= bound for name, bound in AT_LEAST.items()}
    found.update({name: measured.get(name, 1.0) <= bound for name, bound in AT_MOST.items()})
    return found


def report(measured: dict[str, float]) -> str:
    """The gates as a small table, then the other figures."""
    lines = []
    for name, met in verdicts(measured).items():
        bound = f">= {AT_LEAST[name]:.0%}" if name in AT_LEAST else f"<= {AT_MOST[name]:.0%}"
        lines.append(f"{'met   ' if met else 'MISSED'} {name:24} {measured.get(name, 0):7.1%}  {bound}")
    lines += [
        f"       {name:48} {share:7.1%}"
        for name, share in measured.items()
        if name.startswith(("suite ", "type "))
    ]
    return "\n".join(lines)
