"""Training step time with and without `--watch`: what the dashboard costs the training beside it.

    python benchmarks/watch_overhead.py --threads 1 2 --out docs/results/watch.json

Runs `kore train` on the embedded model and the demo's old samples, once for each number of threads, and
opens beside it what `--watch` shows, in a real terminal (tmux, 140x40). The dashboard's process is stopped
and continued in turns of some seconds (SIGSTOP, SIGCONT): two runs differ by more than the dashboard costs,
two neighbouring turns of one run less. Two things are compared: the mean time of a turn's steps, each the gap
between two step events (a median would leave out the few steps that a redraw falls into), and, much less
disturbed by a noisy machine, the share of the time in which a thread of the training could run but had no
core (the kernel's run_delay, over all threads). That leaves out what sharing caches costs.

On a machine with as many cores as training has threads the dashboard takes its time from the training;
with a core to spare it does not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from terminal import Terminal

from kore.demo.archive import demo_data
from kore.io.files import write_json

SAMPLES = demo_data() / "old.jsonl"
# what `kore train --watch` does once training runs, around a child that does nothing; Textual takes SIGCONT for
# a return to the terminal and starts its threads anew
WATCH = """
import signal, sys
from pathlib import Path
listen = signal.signal
signal.signal = lambda number, handler: None if number == signal.SIGCONT else listen(number, handler)
from kore_cli.dashboard.train_and_watch import watch
watch([sys.executable, "-c", "import time; time.sleep(float(%r))"], Path(sys.argv[1]))
"""
SETTLING = 1.0
LEFT_ALONE = 40.0  # seconds of the dashboard's own processor time: a stopped one that goes on has more to do


@contextmanager
def training(folder: Path, threads: int, batch: int) -> Iterator[psutil.Process]:
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
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "KORE_HOME": str(folder.parent)},
    )
    try:
        while len(step_times(folder)) < 10:
            if process.poll() is not None:
                raise RuntimeError(f"training ended with exit code {process.returncode}")
            time.sleep(0.5)
        yield psutil.Process(process.pid)
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


def waited(process: psutil.Process) -> float:
    """Seconds that its threads were ready to run and waited for a core."""
    files = Path(f"/proc/{process.pid}/task").glob("*/schedstat")
    return sum(int(file.read_text().split()[1]) for file in files) / 1e9


@dataclass(frozen=True)
class Turn:
    """When it began and ended, in Unix time, and how long the training waited for a core meanwhile."""

    begun: float
    ended: float
    waited: float

    def mean_step(self, gaps: list[tuple[float, float]]) -> float:
        """Mean seconds of the steps that lie in it."""
        return statistics.fmean(b - a for a, b in gaps if self.begun <= a and b <= self.ended)


def turn(dashboard: psutil.Process, trainer: psutil.Process, seconds: float, *, watched: bool) -> Turn:
    """Let some seconds pass, with the dashboard or without."""
    if watched:
        dashboard.resume()
    else:
        dashboard.suspend()
    time.sleep(SETTLING)
    begun, before = time.time(), waited(trainer)
    time.sleep(seconds)
    return Turn(begun, time.time(), waited(trainer) - before)


def compare(threads: int, repeats: int, seconds: float, batch: int) -> dict[str, Any]:
    """Both kinds of turns, and what the dashboard takes when it is left alone."""
    turns: dict[bool, list[Turn]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        # the child outlives the turns, so that the dashboard does not see it end
        whole = 2 * repeats * (seconds + SETTLING) + LEFT_ALONE + 60
        command = [sys.executable, "-c", WATCH % whole, str(folder)]
        with training(folder, threads, batch) as trainer, Terminal(command, (140, 40)) as terminal:
            terminal.wait_for("step")
            dashboard = psutil.Process(terminal.pid)
            for number in range(repeats):
                for watched in (False, True) if number % 2 == 0 else (True, False):
                    turns[watched].append(turn(dashboard, trainer, seconds, watched=watched))
            dashboard.resume()
            time.sleep(SETTLING)
            before = sum(dashboard.cpu_times()[:2])
            time.sleep(LEFT_ALONE)
            used = sum(dashboard.cpu_times()[:2]) - before
        gaps = list(itertools.pairwise(step_times(folder)))
    means = {kind: [t.mean_step(gaps) for t in turns[kind]] for kind in turns}
    ratios = [100 * (w / p - 1) for p, w in zip(means[False], means[True], strict=True)]
    share = {kind: 100 * statistics.fmean(t.waited for t in turns[kind]) / seconds for kind in turns}
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "threads": threads,
        "pairs": repeats,
        "plain_step_ms": round(1000 * statistics.median(means[False]), 1),
        "watched_step_ms": round(1000 * statistics.median(means[True]), 1),
        "difference_percent": round(middle, 2),
        "quartiles_percent": [round(low, 1), round(high, 1)],
        "standard_error_percent": round(statistics.stdev(ratios) / math.sqrt(len(ratios)), 2),
        "waited_for_a_core_percent": {"plain": round(share[False], 2), "watched": round(share[True], 2)},
        "dashboard_cpu_percent": round(100 * used / LEFT_ALONE, 2),
    }


def together(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The difference over all settings, each weighted by the inverse of its squared standard error."""
    weights = [1 / row["standard_error_percent"] ** 2 for row in rows]
    mean = sum(w * row["difference_percent"] for w, row in zip(weights, rows, strict=True)) / sum(weights)
    return {"difference_percent": round(mean, 2), "standard_error_percent": round(sum(weights) ** -0.5, 2)}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=20, help="pairs of turns")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a turn")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    rows = []
    for threads in args.threads:
        rows.append(compare(threads, args.repeats, args.seconds, args.batch))
        print(json.dumps(rows[-1]), flush=True)
    if args.out:
        told = f"python benchmarks/watch_overhead.py --threads {' '.join(map(str, args.threads))}"
        told += f" --repeats {args.repeats} --seconds {args.seconds:g} --batch {args.batch}"
        machine = f"{os.cpu_count()} cores"
        write_json(args.out, {"command": told, "machine": machine, "rows": rows, "together": together(rows)})


if __name__ == "__main__":
    main()
