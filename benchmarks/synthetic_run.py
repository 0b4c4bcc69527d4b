"""Makes a run folder that looks like a real one, without training anything.

    python benchmarks/synthetic_run.py OUT --steps 400              a finished-looking past
    python benchmarks/synthetic_run.py OUT --steps 400 --live 0.2   goes on writing, a step each 0.2 s
    python benchmarks/synthetic_run.py OUT --events 1000000         only step events, as fast as possible

The numbers are invented and smooth; they are for looking at the dashboard and measuring it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import socket
import time
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from kore.artifacts.events import EventWriter
from kore.artifacts.run import Run, RunState
from kore.io.files import write_json

COUNTRIES = [
    ("Fiji", "Suva", "Oceania", ("#68bfe5", "#cf142b", "#ffffff")),
    ("Niger", "Niamey", "Africa", ("#e05206", "#ffffff", "#0db02b")),
    ("Latvia", "Riga", "Europe", ("#9e3039", "#ffffff", "#9e3039")),
    ("Peru", "Lima", "South America", ("#d91023", "#ffffff", "#d91023")),
    ("Mali", "Bamako", "Africa", ("#14b53a", "#fcd116", "#ce1126")),
    ("Ireland", "Dublin", "Europe", ("#169b62", "#ffffff", "#ff883e")),
    ("Austria", "Vienna", "Europe", ("#ed2939", "#ffffff", "#ed2939")),
    ("Gabon", "Libreville", "Africa", ("#3a75c4", "#fcd116", "#009e60")),
]
SITES = (("attn.qkv", 512), ("attn.o", 512), ("mlp.up", 512), ("mlp.down", 1408))


def picture(path: Path, colours: tuple[str, ...]) -> str:
    image = Image.new("RGB", (96, 64))
    draw = ImageDraw.Draw(image)
    for i, colour in enumerate(colours):
        draw.rectangle((i * 32, 0, i * 32 + 31, 63), fill=colour)
    image.save(path)
    return str(path)


def knowledge(folder: Path) -> dict[str, str]:
    """A tree folder with pictures, some items rejected."""
    folder.mkdir(parents=True, exist_ok=True)
    paths, trees, rejected = {}, [], []
    for name, capital, continent, colours in COUNTRIES:
        paths[name] = picture(folder / f"{name.lower()}.png", colours)
        item = {
            "id": name.lower(),
            "kind": "entity",
            "type": "country",
            "title": name,
            "text": f"{name} is a country in {continent}. Its capital is {capital}.",
            "image": f"{name.lower()}.png",
            "facts": {"capital": capital, "continent": continent},
        }
        trunk = [
            {"question": "What is shown here?", "answer": f"The flag of {name}.", "origin": "heuristic"},
            {
                "question": f"What is the capital of {name}?",
                "answer": capital,
                "origin": "dialogue",
                "evidence": f"Its capital is {capital}.",
                "made": {"by": "offline", "verdict": "grounded"},
            },
        ]
        branches = [
            {
                "task": "recognition",
                "question": f"Is this the flag of {name}?",
                "answer": "Yes",
                "image": f"{name.lower()}.png",
            },
            {
                "task": "vqa",
                "question": "On which continent is this country?",
                "answer": continent,
                "image": f"{name.lower()}.png",
                "subject": name,
                "hypernym": "country",
            },
        ]
        trees.append({"item": item, "trunk": trunk, "branches": branches})
        rejected.append(
            {
                "item": name.lower(),
                "task": "vqa",
                "question": f"Who is the president of {name}?",
                "answer": "J. Doe",
                "reasons": ["the item's text does not say so"],
            }
        )
    (folder / "tree.jsonl").write_text("".join(json.dumps(t) + "\n" for t in trees))
    (folder / "rejected.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rejected[:3]))
    return paths


def spectra(path: Path, label: str, tilt: float, layers: int = 4) -> None:
    sites = []
    for layer in range(layers):
        for site, d_in in SITES:
            index = sorted({round(d_in ** (i / 127)) for i in range(128)})
            values = [1e4 * i ** -(tilt + 0.05 * layer) * math.exp(-((i / d_in) ** 3) * 6) for i in index]
            rng = random.Random(f"{layer}{site}")
            heat = [[abs(rng.gauss(0, 1)) * math.exp(-abs(r - c) / 6) for c in range(32)] for r in range(32)]
            sites.append(
                {
                    "name": f"layers.{layer}.{site}",
                    "layer": layer,
                    "site": site,
                    "d_in": d_in,
                    "tokens": 40960,
                    "trace": sum(values),
                    "effective_rank": 40 * tilt + layer,
                    "rank": 40,
                    "energy_left": 3e-4 * (layer + 1),
                    "held_out": 5e-4 * (layer + 1),
                    "index": index,
                    "eigenvalues": values,
                    "heatmap": heat,
                }
            )
    write_json(path, {"label": label, "sites": sites})


def step_values(step: int, steps: int, rng: random.Random) -> dict[str, Any]:
    share = step / steps
    loss = 0.15 + 3.2 * math.exp(-5 * share) + abs(rng.gauss(0, 0.12)) * (1.2 - share)
    values = {
        "step": step,
        "steps": steps,
        "epoch": round(6 * share, 3),
        "loss": round(loss, 4),
        "lr": 2e-4 * min(1.0, share / 0.03) * (0.5 + 0.5 * math.cos(math.pi * share)),
        "grad_norm": round(0.4 + 2.5 * math.exp(-8 * share) + abs(rng.gauss(0, 0.1)), 4),
        "tokens_per_s": round(12400 + rng.gauss(0, 300), 1),
        "samples_per_s": round(48 + rng.gauss(0, 1), 2),
        "eta_s": round((steps - step) * 0.8, 1),
    }
    if step % max(1, steps // 10) == 0:
        values["held_out_loss"] = round(loss + 0.2 + 0.3 * share, 4)
    return values


def gpu_values(rng: random.Random) -> dict[str, Any]:
    devices = [
        {
            "index": i,
            "name": "NVIDIA H100 80GB HBM3",
            "util": min(100, 92 + rng.gauss(0, 5)),
            "mem_used": int(61e9 + i * 2e9),
            "mem_total": 85_520_809_984,
            "power_w": 610 + rng.gauss(0, 20),
            "temp_c": 63 + i,
        }
        for i in range(2)
    ]
    return {"devices": devices, "cpu_percent": 31.0, "rss": 9_400_000_000}


def probes(writer: EventWriter, step: int, steps: int, paths: dict[str, str]) -> None:
    share = step / steps
    for i, (name, capital, _, _) in enumerate(COUNTRIES):
        new = i % 2 == 0
        learnt = share > 0.2 + 0.09 * i
        right = learnt if new else not (i == 7 and 0.4 < share < 0.8)
        base = f"The capital is {COUNTRIES[(i + 1) % 8][1]}." if new else f"The capital is {capital}."
        writer.write(
            "probe",
            step=step,
            id=f"p{i}",
            probe_kind="new" if new else "old",
            question="What is the capital of the country whose flag is shown?",
            image=paths[name],
            answer_known=capital,
            base=base,
            base_right=not new,
            tuned=f"The capital of {name} is {capital}."
            if right
            else base
            if new
            else "The capital is Oslo.",
            tuned_right=right,
        )


def write_run(
    folder: Path,
    steps: int,
    *,
    upto: int | None = None,
    live: float = 0.0,
    status: str = "running",
    gpu: bool = True,
    spread: float = 0.8,
    nan_at: int | None = None,
    old: float = 0.0,
    now: float | None = None,
    pid: int | None = None,
) -> Run:
    """A whole run folder; times are spread back from `now` (minus `old` seconds) unless live."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = knowledge(folder / "tree")
    run = Run(folder)
    upto = steps if upto is None else upto
    began = (time.time() if now is None else now) - old - upto * spread
    state = RunState(
        status="running",
        method="kore",
        command=["kore", "train", "tree/samples.jsonl", "-p", "tiny", "-o", str(folder)],
        profile={"train.lr": 2e-4, "adapter.rank": 40},
        started=began,
        inputs={
            "tree": {"path": str(folder / "tree"), "hash": "0"},
            "covariance": {"path": str(folder / "mme"), "hash": "0"},
        },
        host=socket.gethostname(),
        pid=pid or os.getpid(),
    )
    run.write(state)
    spectra(run.spectra, "onevision", 0.8)
    spectra(folder / "mme" / "spectra.json", "bench:MME", 1.1)
    rng = random.Random(0)
    with EventWriter(folder) as writer, run.log.open("a", encoding="utf-8") as log:
        stamp = began
        write = writer.write
        write("status", phase="load", text="loading the model")
        for step in range(1, upto + 1):
            stamp = began + step * spread
            values = step_values(step, steps, rng)
            if step == nan_at:
                values["loss"] = math.nan
            write("step", **values)
            if gpu and (live or step > upto - 90):
                write("gpu", **gpu_values(rng))
            if step % max(1, steps // 10) == 0:
                write("checkpoint", step=step, path=f"checkpoints/step-{step}", best=step == steps * 6 // 10)
                probes(writer, step, steps, paths)
                log.write(f"step {step}: checkpoint written, loss {values['loss']}\n")
                log.flush()
            if step == steps // 3:
                write(
                    "warning", step=step, code="retention", text="old probes fell to 0.97 of the base's score"
                )
            if live:
                time.sleep(live)
        if upto == steps:
            for suite, base, tuned in (
                ("adaptation", 4.2, 71.8),
                ("evoke-news", 2.1, 40.3),
                ("mme", 61.3, 60.9),
                ("mmbench", 58.0, 57.2),
                ("pope", 84.1, 84.3),
            ):
                for label, score in (("base", base), ("kore", tuned)):
                    write(
                        "eval",
                        suite=suite,
                        label=label,
                        score=score,
                        metric="CEM" if suite[0] in "ae" else "accuracy",
                        n=400,
                        done=400,
                        total=400,
                    )
                    for k, dimension in enumerate(("politics", "film", "sports")):
                        write(
                            "eval",
                            suite=suite,
                            label=label,
                            dimension=dimension,
                            score=score + 3 * (k - 1),
                            metric="accuracy",
                            n=130,
                            done=130,
                            total=130,
                        )
    if not live:
        backdate(folder, began, spread)
    run.update(
        status=status,
        ended=stamp if status in ("finished", "failed", "interrupted") else None,
        message="loss is not a number" if status == "failed" else None,
    )
    return run


def backdate(folder: Path, began: float, spread: float) -> None:
    """Give the events the times that a real run would have."""
    for path in folder.glob("events-*.jsonl"):
        lines, step = [], 0
        for line in path.read_text(encoding="utf-8").splitlines():
            event = json.loads(line)
            step = event.get("step", step)
            event["t"] = round(began + step * spread, 3)
            lines.append(json.dumps(event))
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_many(folder: Path, events: int) -> Run:
    """A run of very many step events, written in one go."""
    run = write_run(folder, 100, upto=1, gpu=False)
    rng = random.Random(1)
    began = time.time() - events * 0.5
    with (folder / "events-0002.jsonl").open("w", encoding="utf-8") as stream:
        block: list[str] = []
        for step in range(2, events + 2):
            event = {
                "v": 1,
                "t": round(began + step * 0.5, 3),
                "kind": "step",
                **step_values(step, events + 1, rng),
            }
            block.append(json.dumps(event))
            if len(block) == 10000:
                stream.write("\n".join(block) + "\n")
                block.clear()
        stream.write("\n".join([*block, ""]))
    run.update(started=began)
    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--upto", type=int)
    parser.add_argument("--live", type=float, default=0.0)
    parser.add_argument("--status", default="running")
    parser.add_argument("--no-gpu", action="store_true")
    parser.add_argument("--events", type=int)
    args = parser.parse_args()
    if args.events:
        write_many(args.out, args.events)
    else:
        write_run(
            args.out, args.steps, upto=args.upto, live=args.live, status=args.status, gpu=not args.no_gpu
        )


if __name__ == "__main__":
    main()
