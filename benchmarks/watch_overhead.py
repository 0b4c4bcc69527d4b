"""Training step time with and without `--watch`: what the dashboard costs the training beside it.

    python benchmarks/watch_overhead.py --threads 1 2 --repeats 4 --out docs/results/watch.json

Runs `kore train` on the embedded model and the demo's old samples, plainly and with `--watch` in a real
terminal (tmux, 140x40), in turns, so that a slow moment of the machine meets both. The time of a step
is the gap between two step events; the first ones are left out. On a machine with as many cores as
training has threads the dashboard takes its time from the training; with a core to spare it does not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from terminal import Terminal

from kore.files import write_json
from kore.run import Run

SAMPLES = Path(__file__).parents[1] / "kore" / "demo" / "data" / "old.jsonl"
LEFT_OUT = 8


def command(folder: Path, steps: int, batch: int) -> list[str]:
    """The training that is timed."""
    words = ["train", "--data", str(SAMPLES), "--method", "lora", "--lr", "1e-4", "--quiet"]
    words += ["--max-steps", str(steps), "--set", f"train.batch={batch}", "-o", str(folder)]
    return [sys.executable, "-m", "kore_cli", *words]


def step_seconds(folder: Path) -> list[float]:
    """Gaps between the step events of a run, the first ones left out."""
    times = [
        event["t"]
        for path in sorted(folder.glob("events-*.jsonl"))
        for event in map(json.loads, path.read_text(encoding="utf-8").splitlines())
        if event["kind"] == "step"
    ]
    return [after - before for before, after in zip(times[LEFT_OUT:], times[LEFT_OUT + 1 :], strict=False)]


def plain(words: list[str], threads: int) -> None:
    """Train without anyone watching."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, capture_output=True, env=environment)


def watched(words: list[str], threads: int, folder: Path) -> None:
    """Train under the dashboard, and leave it when training is over."""
    with Terminal([*words, "--watch"], (140, 40), env={"OMP_NUM_THREADS": str(threads)}) as terminal:
        while not (folder / "run.json").exists() or Run(folder).state().status in ("starting", "running"):
            if terminal.exit_code is not None:
                raise RuntimeError(f"the dashboard ended:\n{terminal.text()}")
            time.sleep(1.0)
        terminal.press("q")


def compare(threads: int, repeats: int, steps: int, batch: int) -> dict[str, Any]:
    """Median step times of both kinds, turn by turn, and the ratio of all steps' medians."""
    found: dict[str, list[list[float]]] = {"plain": [], "watched": []}
    with tempfile.TemporaryDirectory() as place:
        for turn in range(repeats):
            # the order changes too: what comes second may find a warmer machine
            for kind in ("plain", "watched") if turn % 2 == 0 else ("watched", "plain"):
                folder = Path(place) / f"{kind}-{turn}"
                words = command(folder, steps, batch)
                if kind == "plain":
                    plain(words, threads)
                else:
                    watched(words, threads, folder)
                found[kind].append(step_seconds(folder))
                print(threads, kind, round(1000 * statistics.median(found[kind][-1]), 1), file=sys.stderr)
    medians = {kind: [statistics.median(turn) for turn in turns] for kind, turns in found.items()}
    ratios = [w / p for p, w in zip(medians["plain"], medians["watched"], strict=True)]
    pooled = {kind: statistics.median(itertools.chain(*turns)) for kind, turns in found.items()}
    return {
        "threads": threads,
        "steps_timed": sum(map(len, found["plain"])),
        **{f"{kind}_step_ms": round(1000 * value, 1) for kind, value in pooled.items()},
        **{f"{kind}_turns_ms": [round(1000 * v, 1) for v in turns] for kind, turns in medians.items()},
        "difference_percent": round(100 * (pooled["watched"] / pooled["plain"] - 1), 2),
        "difference_of_turns_percent": round(100 * (statistics.median(ratios) - 1), 2),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    rows = [compare(threads, args.repeats, args.steps, args.batch) for threads in args.threads]
    for row in rows:
        print(json.dumps(row))
    if args.out:
        told = f"python benchmarks/watch_overhead.py --threads {' '.join(map(str, args.threads))}"
        told += f" --repeats {args.repeats} --steps {args.steps} --batch {args.batch}"
        write_json(args.out, {"command": told, "machine": f"{os.cpu_count()} cores", "rows": rows})


if __name__ == "__main__":
    main()
