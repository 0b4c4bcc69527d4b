"""How the dashboard bears a run of very many events: open time, memory, processor.

    python benchmarks/dashboard_scale.py --events 1000000

Prints one JSON object: seconds until the newest state is shown, peak memory then and after the whole
past was read, and the share of a core that following takes while a step is written each 0.3 s.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from synthetic_run import step_values, write_many

from kore_cli.app import KoreApp
from kore_cli.source import RunSource


def memory() -> float:
    """Peak resident memory of this process in MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


async def measure(folder: Path, events: int, follow: float) -> dict[str, Any]:
    """Open the app on the run, wait for the past, follow new events."""
    found: dict[str, Any] = {
        "events": events,
        "log_mb": round(sum(p.stat().st_size for p in folder.glob("*.jsonl")) / 1e6),
    }
    start = time.monotonic()
    app = KoreApp(RunSource(folder, alive=lambda run: True))
    async with app.run_test(size=(140, 40)) as pilot:
        while app.snapshot is None or app.snapshot.state.step < events:
            await pilot.pause(0.01)
        found["newest_shown_s"] = round(time.monotonic() - start, 2)
        found["newest_peak_mb"] = memory()
        while app.snapshot.history is not None:
            await asyncio.sleep(0.2)
        found["past_read_s"] = round(time.monotonic() - start, 1)
        found["past_peak_mb"] = memory()
        found["known_events"] = app.snapshot.state.events
        found["follow_cpu_percent"] = await following(app, folder, events, follow)
        found["followed_to_step"] = app.snapshot.state.step
        found["peak_mb"] = memory()
    return found


async def following(app: KoreApp, folder: Path, events: int, seconds: float) -> float:
    """Write a step each 0.3 s; the share of a core that this process takes, after a settling time."""
    rng = random.Random(2)
    step, writer_cpu = events + 1, 0.0
    with (folder / "events-0003.jsonl").open("w", encoding="utf-8") as stream:
        for phase in (15.0, seconds):
            end, cpu, wall = time.monotonic() + phase, time.process_time(), time.monotonic()
            writer_cpu = 0.0
            while time.monotonic() < end:
                mark = time.thread_time()
                step += 1
                event = {"v": 1, "t": time.time(), "kind": "step", **step_values(step, 2 * events, rng)}
                stream.write(json.dumps(event) + "\n")
                stream.flush()
                writer_cpu += time.thread_time() - mark
                await asyncio.sleep(0.3)
    return round(100 * (time.process_time() - cpu - writer_cpu) / (time.monotonic() - wall), 2)


def main() -> None:
    """Make the run, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--follow", type=float, default=30.0)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make:
        write_many(args.make, args.events)
        return
    with tempfile.TemporaryDirectory() as folder:
        import subprocess

        # written by another process, so that its memory is not counted
        run = Path(folder) / "run"
        command = [sys.executable, __file__, "--events", str(args.events), "--make", str(run)]
        subprocess.run(command, check=True)
        print(json.dumps(asyncio.run(measure(run, args.events, args.follow))))


if __name__ == "__main__":
    main()
