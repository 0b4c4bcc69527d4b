"""How the dashboard bears a run of very many events: open time, memory, processor.

    python benchmarks/dashboard_scale.py --events 1000000 --out docs/results/dashboard.json

Writes a synthetic run, opens `kore dashboard` on it in a real terminal (tmux, 140x40) and watches that
process from outside: seconds from the start of the command until the newest step is seen, peak memory
then, when the whole past has been read, and at the end; and, on each screen, the share of a core that
following takes while a step is written each 0.3 s.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from synthetic_run import step_values, write_many
from terminal import Terminal

from kore.io.files import write_json

SCREENS = ("train", "spectra", "answers", "results", "knowledge")
SETTLING = 12.0


def peak_mb(process: psutil.Process) -> float:
    """The most resident memory that a process ever had, in MB."""
    told = Path(f"/proc/{process.pid}/status").read_text()
    return round(int(re.findall(r"VmHWM:\s+(\d+) kB", told)[0]) / 1024, 1)


def measure(folder: Path, events: int, follow: float) -> dict[str, Any]:
    """Open the dashboard on the run, wait for the past, follow new events."""
    found: dict[str, Any] = {
        "events": events,
        "log_mb": round(sum(p.stat().st_size for p in folder.glob("*.jsonl")) / 1e6),
    }
    start = time.monotonic()
    with Terminal([sys.executable, "-m", "kore_cli", "dashboard", str(folder)], (140, 40)) as terminal:
        process = psutil.Process(terminal.pid)
        terminal.wait_for(f"step {events + 1:,}/", 60.0, every=0.02)
        found["newest_seen_s"] = round(time.monotonic() - start, 2)
        found["newest_peak_mb"] = peak_mb(process)
        while "reading the past" in terminal.text():
            time.sleep(0.5)
        found["past_read_s"] = round(time.monotonic() - start, 1)
        found["past_peak_mb"] = peak_mb(process)
        found["follow_core_percent"] = following(terminal, process, folder, events, follow)
        found["peak_mb"] = peak_mb(process)
        terminal.press("q")
    return found


def following(
    terminal: Terminal, process: psutil.Process, folder: Path, events: int, seconds: float
) -> dict[str, float]:
    """Write a step each 0.3 s; the share of a core that the dashboard takes on each screen, once settled."""
    rng = random.Random(2)
    step, found = events + 1, {}
    with (folder / "events-0003.jsonl").open("w", encoding="utf-8") as stream:
        for key, name in enumerate(SCREENS, start=1):
            terminal.press(str(key))
            for phase in (SETTLING, seconds):
                end, mark = time.monotonic() + phase, used(process)
                wall = time.monotonic()
                while time.monotonic() < end:
                    step += 1
                    event = {"v": 1, "t": time.time(), "kind": "step", **step_values(step, 2 * events, rng)}
                    stream.write(json.dumps(event) + "\n")
                    stream.flush()
                    time.sleep(0.3)
            found[name] = round(100 * (used(process) - mark) / (time.monotonic() - wall), 2)
            terminal.wait_for(f"step {step // 1000:,}", 5.0)
    return found


def used(process: psutil.Process) -> float:
    """Processor seconds so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    """Make the run, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--follow", type=float, default=20.0, help="seconds on each screen")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        write_many(run, args.events)
        found = measure(run, args.events, args.follow)
    print(json.dumps(found))
    if args.out:
        told = f"python benchmarks/dashboard_scale.py --events {args.events}"
        write_json(args.out, {"command": told, "machine": f"{os.cpu_count()} cores", **found})


if __name__ == "__main__":
    main()
