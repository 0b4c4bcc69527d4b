"""Training step time with and without `--watch`: what the dashboard costs the training beside it.

    python benchmarks/watch_overhead.py --threads 1 2 --repeats 8 --out docs/results/watch.json

Runs `kore train` on the embedded model and the demo's old samples, once for each number of threads. While
it trains, what `--watch` shows is opened in a real terminal (tmux, 140x40) and closed again, in turns of
some seconds: two runs differ by more than the dashboard costs, two neighbouring turns of one run do not.
The time of a step is the gap between two step events. A turn begins once the dashboard has drawn itself.

On a machine with as many cores as training has threads the dashboard takes its time from the training;
with a core to spare it does not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from terminal import Terminal

from kore.files import write_json

SAMPLES = Path(__file__).parents[1] / "kore" / "demo" / "data" / "old.jsonl"
# what `kore train --watch` does once training runs, around a child that does nothing
WATCH = """
import sys
from pathlib import Path
from kore_cli.watching import watch
watch([sys.executable, "-c", "import time; time.sleep(float(%r))"], Path(sys.argv[1]))
"""
SETTLING = 3.0


@contextmanager
def training(folder: Path, threads: int, batch: int) -> Iterator[None]:
    """A training that runs until it is left."""
    words = [
        "train",
        "--data",
        str(SAMPLES),
        "--method",
        "lora",
        "--lr",
        "1e-5",
        "--quiet",
        "-o",
        str(folder),
    ]
    words += ["--max-steps", "1000000", "--epochs", "1e9", "--set", f"train.batch={batch}"]
    words += ["--set", "train.save_steps=1000000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "kore_cli", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )
    try:
        while len(step_times(folder)) < 10:
            if process.poll() is not None:
                raise RuntimeError(f"training ended with exit code {process.returncode}")
            time.sleep(0.5)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def step_times(folder: Path) -> list[float]:
    """When each step ended, in Unix time."""
    found = []
    for path in sorted(folder.glob("events-*.jsonl")):
        *whole, _ = path.read_text(encoding="utf-8").split("\n")
        found += [event["t"] for event in map(json.loads, whole) if event["kind"] == "step"]
    return found


def turn(folder: Path, seconds: float, *, watched: bool) -> tuple[float, float]:
    """Let some seconds pass, with the dashboard or without; when they began and ended."""
    if not watched:
        time.sleep(SETTLING)
        begun = time.time()
        time.sleep(seconds)
        return begun, time.time()
    # the child outlives the turn by a little, so that the dashboard does not see it end
    command = [sys.executable, "-c", WATCH % (3 * seconds + 30), str(folder)]
    with Terminal(command, (140, 40)) as terminal:
        terminal.wait_for("step")
        time.sleep(SETTLING)
        begun = time.time()
        time.sleep(seconds)
        ended = time.time()
        terminal.press("q")
    return begun, ended


def compare(threads: int, repeats: int, seconds: float, batch: int) -> dict[str, Any]:
    """Median step times of both kinds of turns, and the median ratio of neighbours."""
    turns: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        with training(folder, threads, batch):
            for number in range(repeats):
                for watched in (False, True) if number % 2 == 0 else (True, False):
                    turns[watched].append(turn(folder, seconds, watched=watched))
        times = step_times(folder)
    gaps = list(itertools.pairwise(times))
    steps = {
        kind: [[b - a for a, b in gaps if begun <= a and b <= ended] for begun, ended in windows]
        for kind, windows in turns.items()
    }
    medians = {kind: [statistics.median(window) for window in windows] for kind, windows in steps.items()}
    ratios = [100 * (w / p - 1) for p, w in zip(medians[False], medians[True], strict=True)]
    pooled = {kind: statistics.median(itertools.chain(*windows)) for kind, windows in steps.items()}
    return {
        "threads": threads,
        "steps": [sum(map(len, steps[False])), sum(map(len, steps[True]))],
        "plain_step_ms": round(1000 * pooled[False], 1),
        "watched_step_ms": round(1000 * pooled[True], 1),
        "difference_percent": round(statistics.median(ratios), 2),
        "differences_of_neighbours_percent": [round(r, 1) for r in ratios],
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=8, help="pairs of turns")
    parser.add_argument("--seconds", type=float, default=12.0, help="length of a turn")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    rows = [compare(threads, args.repeats, args.seconds, args.batch) for threads in args.threads]
    for row in rows:
        print(json.dumps(row))
    if args.out:
        told = f"python benchmarks/watch_overhead.py --threads {' '.join(map(str, args.threads))}"
        told += f" --repeats {args.repeats} --seconds {args.seconds:g} --batch {args.batch}"
        write_json(args.out, {"command": told, "machine": f"{os.cpu_count()} cores", "rows": rows})


if __name__ == "__main__":
    main()
