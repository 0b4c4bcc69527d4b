"""The same cases scored by KORE, in the original's names for figures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kore.data.benchmark_tsv import Row
from kore.data.benchmarks import find
from kore.data.records import IMAGE_MARK
from kore.evaluation.benchmark_suite import _REQUESTS, _SCORERS, load_benchmark
from kore.evaluation.judge import JudgeRequest, Replies
from kore.evaluation.runner import open_task_image
from kore.evaluation.scorers.scorer_context import ScorerContext
from kore.evaluation.suite_options import SuiteOptions
from kore.evaluation.types import Scored
from kore.io.images import open_image

ABBREVIATED = {"coarse_perception": "CP", "logic_reasoning": "LR"}
ALWAYS_JUDGED = ("MathVista_MINI", "MathVision_MINI", "MIA-Bench", "MMDU")


def score(case: Mapping[str, Any], judged: bool) -> Scored:
    """Score a case as the original was asked to."""
    name = case["name"]
    kind = find(name).kind
    rows = [
        Row(r["index"], i + 2, {k: v for k, v in r.items() if k != "image" and v not in ("", None)})
        for i, r in enumerate(case["rows"])
    ]
    sheet = ScorerContext(name, rows, case["said"])
    if judged or name in ALWAYS_JUDGED:
        sheet = replace(sheet, judged=True)
        if kind in _REQUESTS:
            sheet = replace(sheet, replies=_ask(_REQUESTS[kind](sheet), case["replies"]))
    return _SCORERS[kind](sheet)


def _ask(requests: Sequence[JudgeRequest], replies: Mapping[str, Sequence[str]]) -> Replies:
    readable, last = {}, {}
    for request in requests:
        for reply in replies[request.key][: request.tries]:
            # the original takes a failed call for no reply, where it asks for a final answer
            if "Failed to obtain answer via API." in reply:
                continue
            last[request.key] = reply
            if request.accept(reply):
                readable[request.key] = reply
                break
    return Replies(readable, last, frozenset(r.key for r in requests if r.key not in last))


def figures(name: str, scored: Scored) -> dict[str, Any]:
    """Our figures under the original's names."""
    m = scored.metrics
    if name == "MME":
        return {"perception": m["perception"], "reasoning": m["reasoning"], **_strip(m, "category.")}
    if name == "POPE":
        names = {k.rpartition(".")[0] for k in m}
        return {
            n: {
                "Overall": m[f"{n}.f1"],
                "acc": m[f"{n}.accuracy"],
                "precision": m[f"{n}.precision"],
                "recall": m[f"{n}.recall"],
            }
            for n in names
        }
    if name == "HallusionBench":
        names = {k.rpartition(".")[0] for k in m if "." in k}
        return {
            n.removeprefix("category.").removeprefix("l2-category."): {
                k: m[f"{n}.{k}"] for k in ("aAcc", "fAcc", "qAcc")
            }
            for n in names
        }
    if name == "OCRVQA_TESTCORE":
        return {"Overall": m["Overall"], **_strip(m, "category.")}
    if name in ("MathVista_MINI", "MathVision_MINI"):
        names = {k.rpartition(".")[0] for k in m if k.endswith(".tot")}
        return {
            n: {k: m[f"{n}.{k}"] for k in ("tot", "prefetch", "hit", "prefetch_rate", "acc")} for n in names
        }
    if name == "MIA-Bench":
        return {"total_score": m["total_score"], **_strip(m, "type.")}
    if name == "MMDU":
        return {n: _strip(m, f"{n}.") for n in ("all", "valid")}
    splits = sorted({k.split(".")[0] for k in m if k.endswith(".Overall")}) or [""]
    found = {}
    for split in splits:
        mark = f"{split}." if split else ""
        own = {"Overall": m[f"{mark}Overall"]}
        for column in ("l2-category.", "category."):
            own |= {ABBREVIATED.get(k, k): v for k, v in _strip(m, mark + column).items()}
        found[split or "none"] = own
    return found


def samples(name: str, scored: Scored) -> dict[str, Any]:
    """Our verdicts in the original's form."""
    if name == "MIA-Bench":
        return {v.id: dict(v.parts) or None for v in scored.samples}
    if name == "MMDU":
        return {v.id: list(v.parts["overall"]) for v in scored.samples}
    if name in ("MME", "POPE", "HallusionBench"):
        return {v.id: [v.score == 1, v.parts["extracted"]] for v in scored.samples}
    if name in ("MathVista_MINI", "MathVision_MINI"):
        return {v.id: [v.score == 1, v.parts.get("by") == "rule"] for v in scored.samples}
    return {v.id: int(v.score or 0) for v in scored.samples}


def _strip(metrics: Mapping[str, float], prefix: str) -> dict[str, float]:
    return {k.removeprefix(prefix): v for k, v in metrics.items() if k.startswith(prefix)}


def prompts(name: str, folder: Path) -> dict[str, list[list[str]]]:
    """The messages that we build for each row of a file, in the original's form."""
    suite = load_benchmark(name, SuiteOptions(data=folder))
    told = {}
    for task in suite.tasks():
        parts: list[list[str]] = []
        for ask in task.turns:
            texts = ask.text.split(IMAGE_MARK)
            for number, text in enumerate(texts):
                if number:
                    picture = ask.images[number - 1]
                    image = open_image(open_task_image(picture, task.id))
                    parts.append(["image", picture.path, hashlib.sha256(image.tobytes()).hexdigest()])
                # a line break parts a picture from what follows; the original leaves that to the model
                text = text.removeprefix("\n") if number else text
                if text:
                    parts.append(["text", text])
        told[task.id] = parts
    return told
